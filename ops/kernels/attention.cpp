// Causal attention on a CPU, forward and backward, one head of one sequence at a time in cache.
//
// Called by ops/attention.py, which says what is computed. Scores are formed transposed, in blocks of
// 16 keys x 16 queries with the queries in the lanes of a vector, so that the softmax's maximum and sum
// run down the keys and need no step across lanes. Nothing of size T x T is kept: the backward pass
// forms the probabilities again from each query's maximum and sum.
//
// Operands are padded with zeros to whole tiles.

#include "lanes.h"

#include <math.h>
#include <stdlib.h>

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// ---- Operands: x (length, width), rows `stride` elements apart, as tiles ---------------------------

struct Shape {
    int batch, length, n_head, width;  // width of a head

    template <class Type>
    int depth_tiles() const { return (width + DEPTH<Type> - 1) / DEPTH<Type>; }
    int channel_blocks() const { return (width + LANES - 1) / LANES; }
    template <class Type>
    int length_tiles() const { return (length + DEPTH<Type> - 1) / DEPTH<Type>; }
    int query_blocks() const { return (length + LANES - 1) / LANES; }
    template <class Type>
    int padded_blocks() const { return length_tiles<Type>() * Type::PER_WORD; }
};

// Left operand with depth along the channels: [block of 16 positions][depth tile].
template <class Type>
void pack_rows(Tile* out, const Shape& s, const typename Type::Element* x, ptrdiff_t stride) {
    const int depth = s.depth_tiles<Type>(), end = s.padded_blocks<Type>() * LANES;
    for (int t = 0; t < end; t++)
        for (int d = 0; d < depth; d++) {
            const int first = d * DEPTH<Type>;
            Words& row = out[t / LANES * depth + d].row[t % LANES];
            row = t < s.length ? load_row<Type>(x + t * stride + first, s.width - first) : Words{};
        }
}

// Right operand with depth along the channels: [block of 16 positions][depth tile].
template <class Type>
void pack_columns(Tile* out, const Shape& s, const Tile* rows) {
    for (int i = 0; i < s.depth_tiles<Type>() * s.padded_blocks<Type>(); i++)
        transposed(out[i], rows[i]);
}

// Right operand with depth along the positions: [tile of DEPTH positions][block of 16 channels].
template <class Type>
void pack_positions(Tile* out, const Shape& s, const Tile* rows) {
    int depth = s.depth_tiles<Type>(), blocks = s.channel_blocks();
    for (int k = 0; k < s.length_tiles<Type>(); k++)
        for (int c = 0; c < blocks; c++)
            for (int r = 0; r < LANES; r++) {
                Words& word = out[k * blocks + c].row[r];
                int position = k * DEPTH<Type> + r * Type::PER_WORD;
                auto channels = [&](int t) {
                    const Tile& tile = rows[t / LANES * depth + c / Type::PER_WORD];
                    auto* row = (const typename Type::Element*)&tile.row[t % LANES];
                    return row + c % Type::PER_WORD * LANES;
                };
                word = (Words)Type::widen(channels(position));
                if (Type::PER_WORD == 2)
                    word = word >> 16 | (Words)Type::widen(channels(position + 1));
            }
}

// Left operand, transposed, with depth along the positions: [tile of positions][block of channels].
template <class Type>
void pack_transposed(Tile* out, const Shape& s, const Tile* positions) {
    for (int i = 0; i < s.length_tiles<Type>() * s.channel_blocks(); i++)
        transposed(out[i], positions[i]);
}

// Write a block of 16 keys x 16 queries as columns `part * 16...` of a left operand's depth.
template <class Type>
inline void set_left(Tile& tile, int part, const Block& x) {
    for (int r = 0; r < LANES; r++)
        Type::narrow((typename Type::Element*)&tile.row[r] + part * LANES, x.row[r]);
}

// Write a block of 16 keys x 16 queries as rows `part * 16...` of a right operand's depth.
template <class Type>
inline void set_right(Tile& tile, int part, const Block& x) {
    if (Type::PER_WORD == 1) {
        for (int r = 0; r < LANES; r++) tile.row[r] = (Words)x.row[r];
        return;
    }
    for (int r = 0; r < LANES; r += 2)
        tile.row[(part * LANES + r) / 2] = BFloat16::paired(x.row[r], x.row[r + 1]);
}

// Write 16 rows x 16 channels of a result, as far as they exist.
template <class Type>
void write(typename Type::Element* y, ptrdiff_t stride, const Shape& s, int block, int channels,
           const Words* row) {
    const int end = s.length - block * LANES, first = channels * LANES;
    for (int r = 0; r < LANES && r < end; r++)
        store_lanes<Type>(y + (block * LANES + r) * stride + first, (Floats)row[r], s.width - first);
}

// ---- Elementwise --------------------------------------------------------------------------------

// Keys r of the diagonal block that lie in a query's future get `value`.
inline Floats without_future(Floats x, int r, float value) {
    return LANE < r ? broadcast(value) : x;
}

// Which probabilities dropout keeps: a hash of (seed, head, key, query), the same in both passes.
struct Dropout {
    uint64_t seed;
    float scale;  // 1 / (1 - p)
    bool any;
    KeptPairs pairs;

    Dropout(double p, uint64_t seed) : seed(seed), scale(1 / (1 - p)), any(p > 0), pairs(p) {}

    uint64_t of_head(int head) const { return mixed(mixed(seed) + head); }
    // Of 16 queries, for the keys 2 * key_pair and 2 * key_pair + 1.
    KeptPairs::Pair kept(uint64_t of_head, const Shape& s, int key_pair, int query_block) const {
        return pairs.drawn(of_head, (uint32_t)(key_pair * s.query_blocks() + query_block) * LANES);
    }
};

// ---- One head -----------------------------------------------------------------------------------

// What both passes know of one head: where it lies in qkv (B, T, 3 C), and its row of statistics,
// the maximum times `scale` and the inverse sum of each query's exponentials, in base 2.
template <class Type>
struct Head {
    typedef typename Type::Element Element;
    Shape s;
    int index;  // batch * n_head + head
    ptrdiff_t stride, offset;
    const Element *query, *key, *value;
    float* statistics;

    Head(const Shape& s, const Element* qkv, float* statistics, int index) : s(s), index(index) {
        ptrdiff_t channels = (ptrdiff_t)s.n_head * s.width;
        stride = 3 * channels;
        offset = (ptrdiff_t)(index / s.n_head) * s.length * stride + index % s.n_head * s.width;
        query = qkv + offset;
        key = query + channels;
        value = key + channels;
        this->statistics = statistics + (ptrdiff_t)index * 2 * s.query_blocks() * LANES;
    }
    ptrdiff_t out_stride() const { return (ptrdiff_t)s.n_head * s.width; }
    ptrdiff_t out_offset() const {
        return (ptrdiff_t)(index / s.n_head) * s.length * out_stride() + index % s.n_head * s.width;
    }
    Floats& peak(int block) const { return ((Floats*)statistics)[2 * block]; }
    Floats& inverse_sum(int block) const { return ((Floats*)statistics)[2 * block + 1]; }
};

// Hands out parts of one piece of memory.
struct Workspace {
    char* at;
    template <class T>
    T* take(size_t count) {
        T* taken = (T*)at;
        at += count * sizeof(T);
        return taken;
    }
};

template <class Type>
size_t workspace_bytes(const Shape& s) {
    size_t tiles = (size_t)s.padded_blocks<Type>() * (s.depth_tiles<Type>() + s.channel_blocks());
    return sizeof(Tile) * (8 * tiles + 4 * s.padded_blocks<Type>() + 64);
}

template <class Type>
void forward(const Head<Type>& head, typename Type::Element* out, const Dropout& dropout,
             Workspace space) {
    constexpr int M = Type::PER_WORD;
    const Shape& s = head.s;
    const int depth = s.depth_tiles<Type>(), channels = s.channel_blocks();
    const int blocks = s.padded_blocks<Type>(), tiles = s.length_tiles<Type>();
    Tile* rows = space.take<Tile>(blocks * depth);
    Tile* keys = space.take<Tile>(blocks * depth);
    Tile* queries = space.take<Tile>(blocks * depth);
    Tile* positions = space.take<Tile>(tiles * channels);
    Tile* values = space.take<Tile>(tiles * channels);
    Tile* probabilities = space.take<Tile>(tiles);
    Block* scores = space.take<Block>(blocks);
    pack_rows<Type>(keys, s, head.key, head.stride);
    pack_rows<Type>(rows, s, head.query, head.stride);
    pack_columns<Type>(queries, s, rows);
    pack_rows<Type>(rows, s, head.value, head.stride);
    pack_positions<Type>(positions, s, rows);
    pack_transposed<Type>(values, s, positions);
    const float scale = 1 / sqrtf(s.width), base2 = scale * 1.44269504f;
    const uint64_t noise = dropout.of_head(head.index);

    for (int i = 0; i < s.query_blocks(); i++) {
        for (int j = 0; j <= i; j++)
            multiply<Type>(scores[j], keys + j * depth, 1, queries + i * depth, 1, depth);
        for (int r = 0; r < LANES; r++)
            scores[i].row[r] = without_future(scores[i].row[r], r, -__builtin_inff());
        Floats highest[4];
        for (int n = 0; n < 4; n++) highest[n] = scores[0].row[n];
        for (int j = 0; j <= i; j++)
            for (int r = 0; r < LANES; r++) {
                Floats& h = highest[r % 4];
                h = scores[j].row[r] > h ? scores[j].row[r] : h;
            }
        for (int n = 1; n < 4; n++) highest[0] = highest[n] > highest[0] ? highest[n] : highest[0];
        const Floats peak = highest[0] * base2;

        Floats sum[2] = {};
        for (int j = 0; j <= i; j++) {
            for (int r = 0; r < LANES; r++) {
                scores[j].row[r] = exp2(scores[j].row[r] * base2 - peak);
                sum[r % 2] += scores[j].row[r];
            }
            for (int r = 0; r < LANES && dropout.any; r += 2) {
                const auto kept = dropout.kept(noise, s, (j * LANES + r) / 2, i);
                scores[j].row[r] = kept.first ? scores[j].row[r] : Floats{};
                scores[j].row[r + 1] = kept.second ? scores[j].row[r + 1] : Floats{};
            }
            set_right<Type>(probabilities[j / M], j % M, scores[j]);
        }
        if (M == 2 && i % 2 == 0) set_right<Type>(probabilities[i / M], 1, Block{});
        const Floats inverse = 1 / (sum[0] + sum[1]);
        head.peak(i) = peak;
        head.inverse_sum(i) = inverse;
        const Floats factor = inverse * dropout.scale;
        for (int c = 0; c < channels; c++) {
            Block sums;
            multiply<Type>(sums, values + c, channels, probabilities, 1, i / M + 1);
            for (int r = 0; r < LANES; r++) sums.row[r] *= factor;
            transpose((Words*)sums.row);
            write<Type>(out + head.out_offset(), head.out_stride(), s, i, c, (Words*)sums.row);
        }
    }
}

// For each query of a block the sum over channels of gradient * output, which is the sum over keys of
// probability * its gradient.
template <class Type>
Floats row_dots(const Shape& s, const typename Type::Element* gradient,
                const typename Type::Element* out, ptrdiff_t stride, int block) {
    Words row[LANES] = {};
    for (int r = 0; r < LANES && block * LANES + r < s.length; r++)
        for (int c = 0; c < s.width; c += LANES) {
            const ptrdiff_t at = (ptrdiff_t)(block * LANES + r) * stride + c;
            const Floats g = load_lanes<Type>(gradient + at, s.width - c);
            row[r] = (Words)((Floats)row[r] + g * load_lanes<Type>(out + at, s.width - c));
        }
    transpose(row);
    Floats sum = (Floats)row[0];
    for (int r = 1; r < LANES; r++) sum += (Floats)row[r];
    return sum;
}

// Scores to probabilities and their gradients to those of the scores, in place; block of keys j and
// queries i. What dropout left of the probabilities stays in `p`.
template <class Type>
inline void softmax_backward(Block& p, Block& ds, const Head<Type>& head, const Dropout& dropout,
                             uint64_t noise, float base2, int i, int j, Floats dot) {
    const Floats peak = head.peak(i), inverse = head.inverse_sum(i);
    const auto step = [&](int r, Floats factor) WORK {
        Floats probability = exp2(p.row[r] * base2 - peak) * inverse;
        if (i == j) probability = without_future(probability, r, 0);
        p.row[r] = probability * factor;
        ds.row[r] = probability * (ds.row[r] * factor - dot);
    };
    if (!dropout.any) {
        for (int r = 0; r < LANES; r++) step(r, broadcast(1));
        return;
    }
    for (int r = 0; r < LANES; r += 2) {
        const auto kept = dropout.kept(noise, head.s, (j * LANES + r) / 2, i);
        step(r, kept.first ? broadcast(dropout.scale) : Floats{});
        step(r + 1, kept.second ? broadcast(dropout.scale) : Floats{});
    }
}

template <class Type>
void backward(const Head<Type>& head, const typename Type::Element* out,
              const typename Type::Element* gradient, typename Type::Element* grad_qkv,
              const Dropout& dropout, Workspace space) {
    constexpr int M = Type::PER_WORD;
    const Shape& s = head.s;
    const int depth = s.depth_tiles<Type>(), channels = s.channel_blocks();
    const int blocks = s.padded_blocks<Type>(), tiles = s.length_tiles<Type>();
    const ptrdiff_t out_stride = head.out_stride(), out_offset = head.out_offset();
    Tile* rows = space.take<Tile>(blocks * depth);
    Tile* keys = space.take<Tile>(blocks * depth);
    Tile* values = space.take<Tile>(blocks * depth);
    Tile* queries = space.take<Tile>(blocks * depth);
    Tile* gradients = space.take<Tile>(blocks * depth);
    Tile* positions = space.take<Tile>(tiles * channels);
    Tile* keys_transposed = space.take<Tile>(tiles * channels);
    Tile* query_positions = space.take<Tile>(tiles * channels);
    Tile* gradient_positions = space.take<Tile>(tiles * channels);
    Block* grad_query = space.take<Block>(blocks * channels);  // transposed
    Tile* p_left = space.take<Tile>(blocks);  // of one tile of keys, with depth along the queries
    Tile* ds_left = space.take<Tile>(blocks);
    Floats* dots = space.take<Floats>(blocks);
    pack_rows<Type>(keys, s, head.key, head.stride);
    pack_positions<Type>(positions, s, keys);
    pack_transposed<Type>(keys_transposed, s, positions);
    pack_rows<Type>(values, s, head.value, head.stride);
    pack_rows<Type>(rows, s, head.query, head.stride);
    pack_columns<Type>(queries, s, rows);
    pack_positions<Type>(query_positions, s, rows);
    pack_rows<Type>(rows, s, gradient + out_offset, out_stride);
    pack_columns<Type>(gradients, s, rows);
    pack_positions<Type>(gradient_positions, s, rows);
    for (int i = 0; i < s.query_blocks(); i++)
        dots[i] = row_dots<Type>(s, gradient + out_offset, out + out_offset, out_stride, i);
    const float scale = 1 / sqrtf(s.width), base2 = scale * 1.44269504f;
    const uint64_t noise = dropout.of_head(head.index);

    for (int key_tile = 0; key_tile < tiles; key_tile++) {
        for (int query_tile = key_tile; query_tile < tiles; query_tile++) {
            Block p[M][M], ds[M][M];
            for (int a = 0; a < M; a++)
                for (int b = 0; b < M; b++) {
                    const int i = query_tile * M + b, j = key_tile * M + a;
                    if (j > i || i >= s.query_blocks()) {
                        p[a][b] = ds[a][b] = Block{};
                        continue;
                    }
                    multiply<Type>(p[a][b], keys + j * depth, 1, queries + i * depth, 1, depth);
                    multiply<Type>(ds[a][b], values + j * depth, 1, gradients + i * depth, 1, depth);
                }
            Tile ds_right[M];
            for (int a = 0; a < M; a++)
                for (int b = 0; b < M; b++) {
                    const int i = query_tile * M + b, j = key_tile * M + a;
                    if (j <= i && i < s.query_blocks())
                        softmax_backward(p[a][b], ds[a][b], head, dropout, noise, base2, i, j,
                                         dots[i]);
                    const int at = a * tiles + query_tile;
                    set_left<Type>(p_left[at], b, p[a][b]);
                    set_left<Type>(ds_left[at], b, ds[a][b]);
                    set_right<Type>(ds_right[b], a, ds[a][b]);
                }
            for (int b = 0; b < M; b++)
                for (int c = 0; c < channels; c++)
                    multiply<Type>(grad_query[(query_tile * M + b) * channels + c],
                                   keys_transposed + key_tile * channels + c, 0, ds_right + b, 0, 1,
                                   key_tile > 0);
        }
        const int at = key_tile * channels, count = tiles - key_tile;
        for (int a = 0; a < M; a++)
            for (int c = 0; c < channels; c++) {
                const Tile *p = p_left + a * tiles + key_tile, *ds = ds_left + a * tiles + key_tile;
                Block key, value;
                multiply<Type>(value, p, 1, gradient_positions + at + c, channels, count);
                multiply<Type>(key, ds, 1, query_positions + at + c, channels, count);
                for (int r = 0; r < LANES; r++) key.row[r] *= scale;
                typename Type::Element* out = grad_qkv + head.offset + out_stride;
                write<Type>(out, head.stride, s, key_tile * M + a, c, (Words*)key.row);
                write<Type>(out + out_stride, head.stride, s, key_tile * M + a, c, (Words*)value.row);
            }
    }
    for (int i = 0; i < s.query_blocks(); i++)
        for (int c = 0; c < channels; c++) {
            Block& query = grad_query[i * channels + c];
            for (int r = 0; r < LANES; r++) query.row[r] *= scale;
            transpose((Words*)query.row);
            write<Type>(grad_qkv + head.offset, head.stride, s, i, c, (Words*)query.row);
        }
}

// ---- All heads ----------------------------------------------------------------------------------

// Nonzero where memory ran out.
template <class Type, class Work>
int for_each_head(const Shape& s, const Work& work) {
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        void* memory = nullptr;
        failed = posix_memalign(&memory, 64, workspace_bytes<Type>(s));
        [[maybe_unused]] TileRegisters<Type> registers;
#pragma omp for schedule(static)
        for (int i = 0; i < s.batch * s.n_head; i++)
            if (!failed) work(i, Workspace{(char*)memory});
        free(memory);
    }
    return failed;
}

}  // namespace

#define ENTRIES(Type, suffix)                                                                      \
    extern "C" int attention_forward_##suffix(const void* qkv, void* out, float* statistics,       \
                                              int batch, int length, int n_head, int width,        \
                                              double p, uint64_t seed) {                           \
        const Shape s{batch, length, n_head, width};                                               \
        const Dropout dropout(p, seed);                                                            \
        return for_each_head<Type>(s, [&](int i, Workspace space) {                                \
            forward<Type>({s, (const Type::Element*)qkv, statistics, i}, (Type::Element*)out,      \
                          dropout, space);                                                         \
        });                                                                                        \
    }                                                                                              \
    extern "C" int attention_backward_##suffix(const void* qkv, const void* out,                   \
                                               float* statistics, const void* gradient,            \
                                               void* grad_qkv, int batch, int length, int n_head,  \
                                               int width, double p, uint64_t seed) {               \
        const Shape s{batch, length, n_head, width};                                               \
        const Dropout dropout(p, seed);                                                            \
        return for_each_head<Type>(s, [&](int i, Workspace space) {                                \
            backward<Type>({s, (const Type::Element*)qkv, statistics, i},                          \
                           (const Type::Element*)out, (const Type::Element*)gradient,              \
                           (Type::Element*)grad_qkv, dropout, space);                              \
        });                                                                                        \
    }

ENTRIES(Float32, float32)

// Nonzero where this process may use the tile registers, which Linux gives only to those who ask.
extern "C" int attention_has_bfloat16() {
#ifdef __AMX_BF16__
    const int ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#else
    return 0;
#endif
}

#ifdef __AMX_BF16__
ENTRIES(BFloat16, bfloat16)
#endif
