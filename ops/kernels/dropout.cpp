// Dropout of single elements in one pass over memory each way, on a CPU. Called by ops/masking.py, which
// says what is computed. The backward pass is the forward one over the gradient, from the same seed.

#include "lanes.h"

namespace {

template <class Type>
void drop(const typename Type::Element* x, typename Type::Element* y, int64_t count, double p,
          float scale, float shift, float dropped, uint64_t seed) {
    constexpr int64_t PAIR = 2 * LANES, CHUNK = 128 * PAIR;
    const uint64_t key = mixed(seed);
    const KeptPairs pairs(p);
    const auto change = [&](int64_t i, int n, Ints kept) WORK {
        const Floats v = load_lanes<Type>(x + i, n);
        // A dropped inf or NaN becomes NaN: it is not hidden.
        store_lanes<Type>(y + i, v * (kept ? broadcast(scale) : Floats{}) +
                                     (kept ? broadcast(shift) : broadcast(dropped)), n);
    };
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t end = count - first < CHUNK ? count : first + CHUNK;
        int64_t i = first;
        for (; i + PAIR <= end; i += PAIR) {
            const auto kept = pairs.drawn(key, (uint32_t)(i / 2));
            change(i, LANES, kept.first);
            change(i + LANES, LANES, kept.second);
        }
        if (i < end) {
            const auto kept = pairs.drawn(key, (uint32_t)(i / 2));
            change(i, end - i < LANES ? (int)(end - i) : LANES, kept.first);
            if (end - i > LANES) change(i + LANES, (int)(end - i - LANES), kept.second);
        }
    }
}

}  // namespace

#define ENTRIES(Type, suffix)                                                                      \
    extern "C" void dropout_##suffix(const Type::Element* x, Type::Element* y, int64_t count,      \
                                     double p, float scale, float shift, float dropped,            \
                                     uint64_t seed) {                                              \
        drop<Type>(x, y, count, p, scale, shift, dropped, seed);                                   \
    }

ENTRIES(Float32, float32)
ENTRIES(BFloat16, bfloat16)
