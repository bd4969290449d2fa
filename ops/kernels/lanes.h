// Vectors of 16 lanes, tiles, and the element types that products take. GCC's vector extensions, which
// become whatever the machine has; AMX where it has that.
//
// A product multiplies tiles of 16 rows of 64 bytes: by AMX in bfloat16, by vectors in float32. The left
// operand's rows hold DEPTH consecutive elements; the right one's hold, for each of 16 columns, the one
// (float32) or two (bfloat16) elements of one word.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

struct alignas(64) Tile {
    Words row[LANES];
};
struct alignas(64) Block {
    Floats row[LANES];
};

const Ints LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline Floats broadcast(float x) { return x - Floats{}; }

// ---- The two element types ----------------------------------------------------------------------

struct Float32 {
    typedef float Element;
    static constexpr int PER_WORD = 1;

    static Floats widen(const Element* x) {
        Floats y;
        memcpy(&y, x, sizeof y);
        return y;
    }
    static void narrow(Element* y, Floats x) { memcpy(y, &x, sizeof x); }
};

struct BFloat16 {
    typedef uint16_t Element;
    static constexpr int PER_WORD = 2;

    // To the nearest, ties up where the machine has no instruction for it (which sends them to even).
    static Halves rounded(Floats x) {
#ifdef __AVX512BF16__
        return (Halves)_mm512_cvtneps_pbh((__m512)x);
#else
        return __builtin_convertvector(((Words)x + 0x8000u) >> 16, Halves);
#endif
    }
    // Both rounded, `low` in the lower half of each word.
    static Words paired(Floats low, Floats high) {
#ifdef __AVX512BF16__
        typedef uint16_t Shorts __attribute__((vector_size(64)));
        const Shorts each = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        return (Words)__builtin_shuffle((Shorts)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low), each);
#else
        return ((Words)low + 0x8000u) >> 16 | (((Words)high + 0x8000u) & 0xffff0000u);
#endif
    }
    static Floats widen(const Element* x) {
        Halves halves;
        memcpy(&halves, x, sizeof halves);
        return (Floats)(__builtin_convertvector(halves, Words) << 16);
    }
    static void narrow(Element* y, Floats x) {
        Halves halves = rounded(x);
        memcpy(y, &halves, sizeof halves);
    }
};

template <class Type>
constexpr int DEPTH = LANES * Type::PER_WORD;

// The first n elements, at most DEPTH, in one row of a tile; zeros after them.
template <class Type>
inline Words load_row(const typename Type::Element* x, int n) {
#ifdef __AVX512BW__
    if (Type::PER_WORD == 2) return (Words)_mm512_maskz_loadu_epi16(n < 32 ? (1u << n) - 1 : ~0u, x);
    return (Words)_mm512_maskz_loadu_epi32(n < 16 ? (1u << n) - 1 : 0xffff, x);
#else
    Words row{};
    memcpy(&row, x, n < DEPTH<Type> ? n * sizeof *x : sizeof row);
    return row;
#endif
}

// The first n elements, at most 16, as float32; zeros after them.
template <class Type>
inline Floats load_lanes(const typename Type::Element* x, int n) {
    Words row = load_row<Type>(x, n < LANES ? n : LANES);
    return Type::widen((const typename Type::Element*)&row);
}

template <class Type>
inline void store_lanes(typename Type::Element* y, Floats x, int n) {
    typename Type::Element narrow[LANES];
    Type::narrow(narrow, x);
#ifdef __AVX512BW__
    const __mmask16 some = n < LANES ? (1u << n) - 1 : 0xffff;
    if (Type::PER_WORD == 2) {
        __m256i halves;
        memcpy(&halves, narrow, sizeof halves);
        _mm256_mask_storeu_epi16(y, some, halves);
    } else {
        _mm512_mask_storeu_ps(y, some, (__m512)x);
    }
#else
    memcpy(y, narrow, (n < LANES ? n : LANES) * sizeof *y);
#endif
}

// Calls work(i, n) for pieces of n = 16 elements from i on, and once for the rest of `count`. Twice in the
// code, so that the masks of whole pieces are known when it is compiled.
#define WORK __attribute__((always_inline))
template <class Work>
inline void for_each_piece(int64_t count, const Work& work) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) work(i, LANES);
    if (i < count) work(i, (int)(count - i));
}

// The same by all threads.
template <class Work>
inline void for_each_piece_in_parallel(int64_t count, const Work& work) {
    constexpr int64_t CHUNK = 256 * LANES;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < count; first += CHUNK)
        for_each_piece(count - first < CHUNK ? count - first : CHUNK,
                       [&](int64_t i, int n) WORK { work(first + i, n); });
}

// ---- Tiles --------------------------------------------------------------------------------------

// The tile registers' shape, for this thread and while this lives; whoever else uses them sets it anew.
template <class Type>
struct TileRegisters {};

#ifdef __AMX_BF16__
template <>
struct TileRegisters<BFloat16> {
    TileRegisters() {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        asm volatile("" : : "m"(config));  // all of it, not the eight bytes that the header names
        _tile_loadconfig(&config);
    }
    ~TileRegisters() { _tile_release(); }
};
#endif

// c = a b, or c += a b if `add`, over `count` tiles that lie `a_step` and `b_step` apart.
template <class Type>
inline void multiply(Block& c, const Tile* a, ptrdiff_t a_step, const Tile* b, ptrdiff_t b_step,
                     int count, bool add = false) {
    Floats sum[LANES];
    for (int r = 0; r < LANES; r++) sum[r] = add ? c.row[r] : Floats{};
    for (int i = 0; i < count; i++, a += a_step, b += b_step)
        for (int k = 0; k < LANES; k++)
            for (int r = 0; r < LANES; r++)
                sum[r] += ((const float*)a)[r * LANES + k] * (Floats)b->row[k];
    for (int r = 0; r < LANES; r++) c.row[r] = sum[r];
}

#ifdef __AMX_BF16__
template <>
inline void multiply<BFloat16>(Block& c, const Tile* a, ptrdiff_t a_step, const Tile* b,
                               ptrdiff_t b_step, int count, bool add) {
    asm volatile("" ::: "memory");  // what the tiles hold must be stored before they are loaded
    if (add)
        _tile_loadd(0, &c, 64);
    else
        _tile_zero(0);
    for (int i = 0; i < count; i++, a += a_step, b += b_step) {
        _tile_loadd(1, a, 64);
        _tile_loadd(2, b, 64);
        _tile_dpbf16ps(0, 1, 2);
    }
    _tile_stored(0, &c, 64);
}
#endif

// Swap the upper right with the lower left of every square of 2 STEP x 2 STEP words.
template <int STEP>
inline void swap_corners(Words* row) {
    const Ints moved = (LANE & STEP) != 0;
    const Ints upper = moved ? LANE + 16 - STEP : LANE, lower = moved ? LANE + 16 : LANE + STEP;
    for (int r = 0; r < LANES; r++)
        if (!(r & STEP)) {
            Words a = row[r], b = row[r + STEP];
            row[r] = __builtin_shuffle(a, b, upper);
            row[r + STEP] = __builtin_shuffle(a, b, lower);
        }
}

// 16 x 16 words, in place.
inline void transpose(Words* row) {
    swap_corners<1>(row);
    swap_corners<2>(row);
    swap_corners<4>(row);
    swap_corners<8>(row);
}

inline void transposed(Tile& out, const Tile& in) {
    Words row[LANES];
    for (int r = 0; r < LANES; r++) row[r] = in.row[r];
    transpose(row);
    for (int r = 0; r < LANES; r++) out.row[r] = row[r];
}

// ---- Elementwise --------------------------------------------------------------------------------

// 2^x for x <= 0, within 2e-7 of its value; exactly 0 at -127 and below. NaN stays NaN.
inline Floats exp2(Floats x) {
    x = x < -127.0f ? broadcast(-127.0f) : x;
    const Floats shifted = x + 12582912.0f;  // 1.5 x 2^23: the nearest integer in the low bits
    const Floats f = x - (shifted - 12582912.0f);
    Floats y = f * 0.001326468f + 0.00967150301f;  // minimax over [-1/2, 1/2] with y(0) = 1
    y = y * f + 0.0555073377f;
    y = y * f + 0.240222422f;
    y = y * f + 0.693146978f;
    y = y * f + 1.0f;
    return (Floats)((Words)y + ((Words)shifted << 23));
}

// cos(x) and sin(x) for |x| < 10^4, within 2e-7. Both from r, the rest of x over pi, in [-pi/2, pi/2].
struct CosSin {
    Floats cos, sin;

    explicit CosSin(Floats x) {
        const Floats shifted = x * 0.318309886f + 12582912.0f;
        const Floats n = shifted - 12582912.0f;
        const Floats r = (x - n * 3.140625f) - n * 0.0009676536f;
        const Floats u = r * r;
        const Words sign = (Words)shifted << 31;  // of odd n
        Floats c = u * -2.60515332e-07f + 2.47601635e-05f;
        c = c * u - 0.00138883614f;
        c = c * u + 0.0416666363f;
        c = c * u - 0.499999994f;
        c = c * u + 1.0f;
        Floats s = u * 2.60523247e-06f - 0.000198090786f;
        s = s * u + 0.00833305111f;
        s = s * u - 0.16666658f;
        s = s * u * r + r;
        cos = (Floats)((Words)c ^ sign);
        sin = (Floats)((Words)s ^ sign);
    }
};

// ---- Noise --------------------------------------------------------------------------------------

// The finalizer of SplitMix64 (Steele et al. 2014).
inline uint64_t mixed(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// 32 random bits for each lane, a function of (key, first) alone; `key` must itself be mixed.
inline Words random_bits(uint64_t key, uint32_t first) {
    Words x = ((Words)LANE + first) * 0x9e3779b9u + (uint32_t)key;
    x = (x ^ x >> 17) * 0xed5ad4bbu;  // constants found by C. Wellons' search for 32-bit mixes
    x = (x ^ x >> 11 ^ (uint32_t)(key >> 32)) * 0xac4c1b51u;
    x = (x ^ x >> 15) * 0x31848babu;
    return x ^ x >> 14;
}

// Uniform in [0, 1), in steps of 2^-24: elements i, i + 1, ... of the noise that `key` stands for.
inline Floats uniform(uint64_t key, int64_t i) {
    return __builtin_convertvector(random_bits(key, (uint32_t)i) >> 8, Floats) * 0x1p-24f;
}

// Which elements dropout keeps, by 16 bits of noise each: two for one hash, and the rate is the nearest
// of 65,536 steps to p.
struct KeptPairs {
    uint32_t n_dropped;
    struct Pair {
        Ints first, second;  // 16 lanes each: -1 where kept, else 0
    };

    explicit KeptPairs(double p) : n_dropped((uint32_t)(p * 65536 + 0.5)) {}
    Pair drawn(uint64_t key, uint32_t first) const {
        const Words noise = random_bits(key, first);
        return {(noise & 0xffff) >= n_dropped, (noise >> 16) >= n_dropped};
    }
};

}  // namespace
