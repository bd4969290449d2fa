// Zeros and ones with given probabilities, on a CPU. Called by ops/random.py.

#include "lanes.h"

// out[i] = 1 where uniform(seed, i) < probability[i], else 0.
extern "C" void bernoulli_float32(const float* probability, float* out, int64_t count,
                                  uint64_t seed) {
    const uint64_t key = mixed(seed);
    for_each_piece_in_parallel(count, [&](int64_t i, int n) WORK {
        const Floats p = load_lanes<Float32>(probability + i, n);
        store_lanes<Float32>(out + i, uniform(key, i) < p ? broadcast(1) : Floats{}, n);
    });
}
