// Learned dropout's mask from what its attention found, in one pass over memory each way, on a CPU.
//
// Called by ops/learned_mask.py, which says what is computed. The backward pass computes the mask again
// from the same noise, so nothing is kept for it.

#include "lanes.h"

namespace {

constexpr int64_t ROWS = 64;  // whose sums are formed together, whatever the number of threads

// M = cos(A + B) / 2 + 1/2, its derivative by A + B, and the mask, for 16 channels of one row.
struct Mask {
    Floats soft, slope;
    Ints kept;

    Mask(Floats attended, Floats shift, uint64_t key, int64_t i) {
        const CosSin angle(attended + shift);
        soft = angle.cos * 0.5f + 0.5f;
        slope = angle.sin * -0.5f;
        kept = uniform(key, i) < soft;
    }
    Floats applied(Floats x) const { return kept ? x : x * 0.0f; }  // inf * 0 is NaN: not hidden
};

// Calls work(chunk, i, channel, n) for pieces of n at most 16 elements, `i` counting all of them.
template <class Work>
void for_each_piece_of_rows(int64_t rows, int width, const Work& work) {
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < (rows + ROWS - 1) / ROWS; chunk++)
        for (int64_t row = chunk * ROWS; row < rows && row < (chunk + 1) * ROWS; row++)
            for_each_piece(width,
                           [&](int64_t c, int n) WORK { work(chunk, row * width + c, c, n); });
}

// squares[chunk] (16) += the sums of M^2 over the chunk's rows, every 16th channel in one.
template <class Type>
void forward(const typename Type::Element* hidden, const typename Type::Element* attended,
             const float* shift, typename Type::Element* out, float* squares, int64_t rows, int width,
             uint64_t seed) {
    const uint64_t key = mixed(seed);
    for_each_piece_of_rows(rows, width, [&](int64_t chunk, int64_t i, int64_t c, int n) WORK {
        const Mask mask(load_lanes<Type>(attended + i, n), load_lanes<Float32>(shift + c, n), key, i);
        store_lanes<Type>(out + i, mask.applied(load_lanes<Type>(hidden + i, n)), n);
        const Floats soft = LANE < n ? mask.soft : Floats{};
        float* sums = squares + chunk * LANES;
        store_lanes<Float32>(sums, load_lanes<Float32>(sums, LANES) + soft * soft, LANES);
    });
}

// by_shift[chunk] (width) = the sum over the chunk's rows of the gradient by A + B.
template <class Type>
void backward(const typename Type::Element* hidden, const typename Type::Element* attended,
              const float* shift, const typename Type::Element* gradient, float by_square,
              typename Type::Element* by_hidden, typename Type::Element* by_attended,
              float* by_shift, int64_t rows, int width, uint64_t seed) {
    const uint64_t key = mixed(seed);
    for_each_piece_of_rows(rows, width, [&](int64_t chunk, int64_t i, int64_t c, int n) WORK {
        const Mask mask(load_lanes<Type>(attended + i, n), load_lanes<Float32>(shift + c, n), key, i);
        const Floats g = load_lanes<Type>(gradient + i, n);
        store_lanes<Type>(by_hidden + i, mask.applied(g), n);
        const Floats by_mask = g * load_lanes<Type>(hidden + i, n) + mask.soft * (2 * by_square);
        const Floats by_angle = by_mask * mask.slope;
        store_lanes<Type>(by_attended + i, by_angle, n);
        float* sums = by_shift + chunk * width + c;
        store_lanes<Float32>(sums, load_lanes<Float32>(sums, n) + by_angle, n);
    });
}

}  // namespace

#define ENTRIES(Type, suffix)                                                                      \
    extern "C" void learned_mask_forward_##suffix(                                                 \
        const Type::Element* hidden, const Type::Element* attended, const float* shift,            \
        Type::Element* out, float* squares, int64_t rows, int width, uint64_t seed) {              \
        forward<Type>(hidden, attended, shift, out, squares, rows, width, seed);                   \
    }                                                                                              \
    extern "C" void learned_mask_backward_##suffix(                                                \
        const Type::Element* hidden, const Type::Element* attended, const float* shift,            \
        const Type::Element* gradient, Type::Element* by_hidden, Type::Element* by_attended,       \
        float* by_shift, float by_square, int64_t rows, int width, uint64_t seed) {                \
        backward<Type>(hidden, attended, shift, gradient, by_square, by_hidden, by_attended,       \
                       by_shift, rows, width, seed);                                               \
    }

ENTRIES(Float32, float32)
ENTRIES(BFloat16, bfloat16)
