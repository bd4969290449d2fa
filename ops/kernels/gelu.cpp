// The exact GELU and its gradient on a CPU. Called by ops/gelu.py, which says what is computed.

#include "lanes.h"

namespace {

// Phi(x), the normal distribution's cumulative function, and its derivative. With z = |x| / sqrt(2),
// erfc(z) = (a1 t + ... + a5 t^5) exp(-z^2) where t = 1 / (1 + p z), within 1.5e-7: Abramowitz and
// Stegun, 7.1.26. The same exponential serves the derivative.
struct Normal {
    Floats cumulative, density;

    explicit Normal(Floats x) {
        const Floats z = (x < 0.0f ? -x : x) * 0.707106781f;
        const Floats t = 1.0f / (z * 0.3275911f + 1.0f);
        const Floats exponential = exp2(x * x * -0.721347520f);
        Floats y = t * 1.061405429f - 1.453152027f;
        y = y * t + 1.421413741f;
        y = y * t - 0.284496736f;
        y = y * t + 0.254829592f;
        const Floats tail = y * t * exponential * 0.5f;
        cumulative = x < 0.0f ? tail : 1.0f - tail;
        density = exponential * 0.398942280f;
    }
};

template <class Type>
void forward(const typename Type::Element* x, typename Type::Element* y, int64_t count) {
    for_each_piece_in_parallel(count, [&](int64_t i, int n) WORK {
        const Floats v = load_lanes<Type>(x + i, n);
        store_lanes<Type>(y + i, v * Normal(v).cumulative, n);
    });
}

// by_y becomes by_x in place, and y is formed again.
template <class Type>
void backward(const typename Type::Element* x, typename Type::Element* by_y,
              typename Type::Element* y, int64_t count) {
    for_each_piece_in_parallel(count, [&](int64_t i, int n) WORK {
        const Floats v = load_lanes<Type>(x + i, n);
        const Normal normal(v);
        const Floats slope = v * normal.density + normal.cumulative;
        store_lanes<Type>(by_y + i, load_lanes<Type>(by_y + i, n) * slope, n);
        store_lanes<Type>(y + i, v * normal.cumulative, n);
    });
}

}  // namespace

#define ENTRIES(Type, suffix)                                                                      \
    extern "C" void gelu_forward_##suffix(const Type::Element* x, Type::Element* y,                \
                                          int64_t count) {                                         \
        forward<Type>(x, y, count);                                                                \
    }                                                                                              \
    extern "C" void gelu_backward_##suffix(const Type::Element* x, Type::Element* by_y,            \
                                           Type::Element* y, int64_t count) {                      \
        backward<Type>(x, by_y, y, count);                                                         \
    }

ENTRIES(Float32, float32)
ENTRIES(BFloat16, bfloat16)
