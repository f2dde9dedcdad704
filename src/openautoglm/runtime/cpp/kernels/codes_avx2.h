// Sums of int8 and int4 groups with AVX2. Included inside the namespace of the path.
//
// The byte product of AVX2 adds two neighbours in 16 bits and saturates. int8: (code - 128) is split into magnitude and
// sign, and the sign goes to the activation: 2 * 128 * 127 fits. int4: 2 * 15 * 127 fits eight times over.

inline __m256i spread_four(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

inline __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// totals[r][c] += the sums of one int8 group, of code - 128.
template <int ROWS, int COLUMNS>
inline void add_int8(const uint8_t* data, const int8_t* a, int64_t a_stride, int count, __m256i (&totals)[ROWS][COLUMNS]) {
    const __m256i ones = _mm256_set1_epi16(1), middle = _mm256_set1_epi8(-128);
    for (int k = 0; k < count; k += 4, data += kPanel * 4)
        for (int c = 0; c < COLUMNS; ++c) {
            const __m256i weight = _mm256_xor_si256(load_bytes(data + c * 32), middle);
            const __m256i magnitude = _mm256_abs_epi8(weight);
            for (int r = 0; r < ROWS; ++r) {
                const __m256i turned = _mm256_sign_epi8(spread_four(a + r * a_stride + k), weight);
                const __m256i pairs = _mm256_maddubs_epi16(magnitude, turned);
                totals[r][c] = _mm256_add_epi32(totals[r][c], _mm256_madd_epi16(pairs, ones));
            }
        }
}

// totals[r][c] += the sums of one int4 group, of the codes as they are.
template <int ROWS, int COLUMNS>
inline void add_int4(const uint8_t* data, const int8_t* a, int64_t a_stride, int count, __m256i (&totals)[ROWS][COLUMNS]) {
    const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    for (int start = 0; start < count; start += 32) {
        const int end = start + 32 < count ? start + 32 : count;
        __m256i pairs[ROWS][COLUMNS];
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < COLUMNS; ++c) pairs[r][c] = _mm256_setzero_si256();
        for (int k = start; k < end; k += 8, data += kPanel * 4)
            for (int c = 0; c < COLUMNS; ++c) {
                const __m256i both = load_bytes(data + c * 32);
                const __m256i first = _mm256_and_si256(both, low);
                const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
                for (int r = 0; r < ROWS; ++r) {
                    const int8_t* at = a + r * a_stride + k;
                    pairs[r][c] = _mm256_add_epi16(pairs[r][c], _mm256_maddubs_epi16(first, spread_four(at)));
                    pairs[r][c] = _mm256_add_epi16(pairs[r][c], _mm256_maddubs_epi16(second, spread_four(at + 4)));
                }
            }
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < COLUMNS; ++c)
                totals[r][c] = _mm256_add_epi32(totals[r][c], _mm256_madd_epi16(pairs[r][c], ones));
    }
}

// `COLUMNS` registers of eight outputs, from output `from` of the panel on; sums [ROWS, 32].
template <int ROWS, int COLUMNS, int BITS>
inline void code_part(const TileArgs& args, int from, float (*sums)[kPanel]) {
    const PackedView& view = *args.view;
    const int64_t a_stride = view.width;
    __m256 parts[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c) parts[r][c] = _mm256_setzero_ps();
    for (int g = 0; g < view.groups; ++g) {
        const uint8_t* group = args.panel + sizeof(PanelHead) + g * view.group_bytes;
        const uint8_t* data = group + sizeof(GroupHead) * (view.zeros ? 2 : 1) + from * 4;
        const int8_t* a = args.values + static_cast<int64_t>(g) * view.group_padded;
        __m256i totals[ROWS][COLUMNS];
        for (int c = 0; c < COLUMNS; ++c) {
            // what is still to be taken off a code times an activation, so that the zero point counts as zero
            __m256i point = _mm256_set1_epi32(BITS == 8 ? 0 : 8);
            if (view.zeros) {
                const uint8_t* points = group + sizeof(GroupHead) + (from + c * 8) * 2;
                point = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(points)));
                if (BITS == 8) point = _mm256_sub_epi32(point, _mm256_set1_epi32(128));
            }
            for (int r = 0; r < ROWS; ++r) {
                const __m256i total = _mm256_set1_epi32(args.sums[static_cast<int64_t>(r) * view.groups + g]);
                totals[r][c] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_mullo_epi32(point, total));
            }
        }
        if constexpr (BITS == 8) add_int8<ROWS, COLUMNS>(data, a, a_stride, view.group_padded, totals);
        else add_int4<ROWS, COLUMNS>(data, a, a_stride, view.group_padded, totals);
        for (int c = 0; c < COLUMNS; ++c) {
            const __m256 scale = _mm256_cvtph_ps(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(group + (from + c * 8) * 2)));
            for (int r = 0; r < ROWS; ++r) {
                const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(args.scales[static_cast<int64_t>(r) * view.groups + g]));
                parts[r][c] = _mm256_add_ps(parts[r][c], _mm256_mul_ps(_mm256_cvtepi32_ps(totals[r][c]), both));
            }
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c) _mm256_storeu_ps(sums[r] + from + c * 8, parts[r][c]);
}

template <int ROWS, int BITS> void code_tile(const TileArgs& args) {
    constexpr int columns = ROWS == 1 ? 4 : ROWS == 2 ? 2 : BITS == 8 ? 2 : 1;  // what sixteen registers hold
    float sums[ROWS][kPanel];
    for (int from = 0; from < kPanel; from += columns * 8) code_part<ROWS, columns, BITS>(args, from, sums);
    for (int r = 0; r < ROWS; ++r) finish_row(args, r, sums[r]);
}
