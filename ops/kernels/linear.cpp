// The gradient of a linear layer's weight, on a CPU with AMX. Called by ops/linear.py, which says what
// is computed.
//
// The depth of the product are the rows of X and of the gradient. X is packed once, by all threads; each
// thread then packs some of the gradient's columns at a time and lets all of X go by.

#include "lanes.h"

#include <stdlib.h>

#ifdef __AMX_BF16__

namespace {

constexpr int DEPTH_ROWS = DEPTH<BFloat16>;
constexpr int64_t GROUP = 8;   // blocks of 16 outputs packed at a time: rows of 256 bytes
constexpr int64_t PANEL = 16;  // depth tiles packed at a time: two blocks of them fill the first cache

// 16 channels of 32 rows as far as they exist, two rows in a word: a right operand.
inline void pack(Tile& out, const uint16_t* x, ptrdiff_t stride, int64_t rows, int64_t channels) {
    const auto load = [&](int64_t r) {
        return r < rows ? (Words)load_lanes<BFloat16>(x + r * stride, (int)channels) : Words{};
    };
    for (int r = 0; r < LANES; r++) out.row[r] = load(2 * r) >> 16 | load(2 * r + 1);
}

// sums[i][j] = left[i] right[j] over `count` tiles each, whose operands lie `left_step` and `right_step`
// apart; the second of a pair only where it exists.
inline void multiply_pairs(Block (*sums)[2], const Tile* left, ptrdiff_t left_step, const Tile* right,
                           ptrdiff_t right_step, int count, bool two_left, bool two_right) {
    asm volatile("" ::: "memory");  // what the tiles hold must be stored before they are loaded
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < count; k++) {
        _tile_loadd(4, left + k, 64);
        _tile_loadd(6, right + k, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (two_right) {
            _tile_loadd(7, right + right_step + k, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (!two_left) continue;
        _tile_loadd(5, left + left_step + k, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (two_right) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, &sums[0][0], 64);
    _tile_stored(1, &sums[0][1], 64);
    _tile_stored(2, &sums[1][0], 64);
    _tile_stored(3, &sums[1][1], 64);
}

// Adds 16 x 16 sums to those of `out` (.., inputs), or writes them unless `add`, as far as they exist.
inline void write(float* out, int64_t inputs, const Block& sums, int64_t rows, int64_t columns,
                  bool add) {
    const int n = columns < LANES ? columns : LANES;
    for (int r = 0; r < LANES && r < rows; r++, out += inputs)
        store_lanes<Float32>(out, add ? sums.row[r] + load_lanes<Float32>(out, n) : sums.row[r], n);
}

}  // namespace

// out (outputs, inputs) += gradient^T x, or = unless `add`; `gradient` (rows, outputs) and `x` (rows,
// inputs) with rows that are `stride` and `x_stride` elements apart. Nonzero where memory ran out.
extern "C" int weight_gradient_bfloat16(const uint16_t* gradient, const uint16_t* x, float* out,
                                        int64_t rows, int64_t outputs, int64_t inputs,
                                        int64_t stride, int64_t x_stride, int add, int threads) {
    const int64_t depth = (rows + DEPTH_ROWS - 1) / DEPTH_ROWS, step = depth | 1;  // odd: apart in cache
    const int64_t columns = (inputs + LANES - 1) / LANES, blocks = (outputs + LANES - 1) / LANES;
    if (!blocks || !columns) return 0;
    const int64_t rounds = (blocks + threads * GROUP - 1) / (threads * GROUP);
    const int64_t group = (blocks + threads * rounds - 1) / (threads * rounds);
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, step * columns * sizeof(Tile))) return 1;
    Tile* right = (Tile*)memory;  // [block of 16 inputs][depth tile]
#pragma omp parallel
    {
        TileRegisters<BFloat16> registers;
        Tile left[GROUP][PANEL + 1];
#pragma omp for schedule(static)
        for (int64_t k = 0; k < depth; k++)
            for (int64_t c = 0; c < columns; c++)
                pack(right[c * step + k], x + k * DEPTH_ROWS * x_stride + c * LANES, x_stride,
                     rows - k * DEPTH_ROWS, inputs - c * LANES);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block += group)
            for (int64_t first = 0; first < depth; first += PANEL) {
                const int count = depth - first < PANEL ? depth - first : PANEL;
                const int some = blocks - block < group ? blocks - block : group;
                for (int k = 0; k < count; k++)
                    for (int i = 0; i < some; i++) {
                        const int64_t row = (first + k) * DEPTH_ROWS, output = (block + i) * LANES;
                        pack(left[i][k], gradient + row * stride + output, stride, rows - row,
                             outputs - output);
                        transpose(left[i][k].row);
                    }
                for (int64_t c = 0; c < columns; c += 2)
                    for (int i = 0; i < some; i += 2) {
                        const int two = i + 1 < some, two_columns = c + 1 < columns;
                        Block sums[2][2];
                        multiply_pairs(sums, left[i], PANEL + 1, right + c * step + first, step, count,
                                       two, two_columns);
                        for (int a = 0; a <= two; a++)
                            for (int b = 0; b <= two_columns; b++) {
                                const int64_t row = (block + i + a) * LANES, column = (c + b) * LANES;
                                write(out + row * inputs + column, inputs, sums[a][b], outputs - row,
                                      inputs - column, add || first);
                            }
                    }
            }
    }
    free(memory);
    return 0;
}

#endif
