// The softmax of the output head and its cross-entropy on a CPU, a row at a time in cache. Called by
// ops/head.py, which says what is computed.

#include "lanes.h"

#include <math.h>
#include <stdlib.h>

namespace {

// Overwrites `row` with softmax(row) - onehot(target); returns the loss. `scratch` holds `columns`
// floats, rounded up to whole vectors.
template <class Type>
float softmax_minus_target(typename Type::Element* row, int64_t columns, int64_t target,
                           Floats* scratch) {
    const int64_t pieces = (columns + LANES - 1) / LANES;
    const int rest = columns - (pieces - 1) * LANES;
    Floats highest = broadcast(-__builtin_inff());
    for (int64_t i = 0; i < pieces; i++) {
        Floats x = load_lanes<Type>(row + i * LANES, i == pieces - 1 ? rest : LANES);
        if (i == pieces - 1) x = LANE < rest ? x : broadcast(-__builtin_inff());
        scratch[i] = x;
        highest = x > highest ? x : highest;
    }
    float peak = highest[0];
    for (int lane = 1; lane < LANES; lane++) peak = highest[lane] > peak ? highest[lane] : peak;
    const float base2 = 1.44269504f, distance = peak - ((const float*)scratch)[target];

    Floats sums[4] = {};
    for (int64_t i = 0; i < pieces; i++) {
        scratch[i] = exp2((scratch[i] - peak) * base2);
        sums[i % 4] += scratch[i];
    }
    const Floats folded = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += folded[lane];
    float& at_target = ((float*)scratch)[target];
    at_target -= total;  // of the others, negative: p - 1 before the division
    const float inverse = 1 / total;
    for (int64_t i = 0; i < pieces; i++)
        store_lanes<Type>(row + i * LANES, scratch[i] * inverse, i == pieces - 1 ? rest : LANES);
    return logf(total) + distance;
}

// Nonzero where memory ran out.
template <class Type>
int all_rows(typename Type::Element* logits, const int64_t* targets, float* losses, int64_t rows,
             int64_t columns) {
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        void* scratch = nullptr;
        failed = posix_memalign(&scratch, 64, (columns + LANES) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            if (!failed)
                losses[r] = softmax_minus_target<Type>(logits + r * columns, columns, targets[r],
                                                       (Floats*)scratch);
        free(scratch);
    }
    return failed;
}

}  // namespace

extern "C" int softmax_minus_target_float32(float* logits, const int64_t* targets, float* losses,
                                            int64_t rows, int64_t columns) {
    return all_rows<Float32>(logits, targets, losses, rows, columns);
}
extern "C" int softmax_minus_target_bfloat16(uint16_t* logits, const int64_t* targets, float* losses,
                                             int64_t rows, int64_t columns) {
    return all_rows<BFloat16>(logits, targets, losses, rows, columns);
}
