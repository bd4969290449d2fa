// Zeros and ones with given probabilities, on a CPU. Called by ops/random.py.

#include "lanes.h"

namespace {

constexpr int64_t RUN = 4096;  // elements that share one mixed key

// out[i] = 1 where uniform(seed, i) < probability[i], for LANES elements from `i` on or what is left.
inline void draw(float* out, const float* probability, int64_t i, int64_t end, uint64_t key) {
    const int n = end - i < LANES ? end - i : LANES;
    const Floats uniform =  // 24 bits, in [0, 1)
        __builtin_convertvector(random_bits(key, i % RUN) >> 8, Floats) * 0x1p-24f;
    const Floats p = load_lanes<Float32>(probability + i, n);
    store_lanes<Float32>(out + i, uniform < p ? broadcast(1) : Floats{}, n);
}

}  // namespace

extern "C" void bernoulli_float32(const float* probability, float* out, int64_t count,
                                  uint64_t seed) {
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < count; start += RUN) {
        const uint64_t key = mixed(mixed(seed) + start / RUN);
        const int64_t end = start + RUN < count ? start + RUN : count;
        for (int64_t i = start; i < end; i += LANES) draw(out, probability, i, end, key);
    }
}
