// Sums of int8 and int4 groups with the byte products of AVX-512 VNNI: unsigned codes times signed activations, four
// neighbours at once, exact. Included inside the namespace of the path.

constexpr int kAhead = 2048;  // bytes fetched ahead when few rows make the product wait for memory

inline __m512i spread_four(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

template <int ROWS> inline void fetch_ahead(const uint8_t* data) {
    if constexpr (ROWS <= 4) {
        _mm_prefetch(reinterpret_cast<const char*>(data) + kAhead, _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(data) + kAhead + 64, _MM_HINT_T0);
    }
}

template <int ROWS>
inline void add_int8(const uint8_t* data, const int8_t* a, int64_t a_stride, int count, __m512i (&totals)[ROWS][2]) {
    for (int k = 0; k < count; k += 4, data += kPanel * 4) {
        fetch_ahead<ROWS>(data);
        const __m512i left = _mm512_loadu_si512(data), right = _mm512_loadu_si512(data + 64);
        for (int r = 0; r < ROWS; ++r) {
            const __m512i four = spread_four(a + r * a_stride + k);
            totals[r][0] = _mm512_dpbusd_epi32(totals[r][0], left, four);
            totals[r][1] = _mm512_dpbusd_epi32(totals[r][1], right, four);
        }
    }
}

template <int ROWS>
inline void add_int4(const uint8_t* data, const int8_t* a, int64_t a_stride, int count, __m512i (&totals)[ROWS][2]) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int k = 0; k < count; k += 8, data += kPanel * 4) {
        fetch_ahead<ROWS>(data);
        const __m512i left = _mm512_loadu_si512(data), right = _mm512_loadu_si512(data + 64);
        const __m512i left_low = _mm512_and_si512(left, low), right_low = _mm512_and_si512(right, low);
        const __m512i left_high = _mm512_and_si512(_mm512_srli_epi16(left, 4), low);
        const __m512i right_high = _mm512_and_si512(_mm512_srli_epi16(right, 4), low);
        for (int r = 0; r < ROWS; ++r) {
            const __m512i first = spread_four(a + r * a_stride + k), second = spread_four(a + r * a_stride + k + 4);
            totals[r][0] = _mm512_dpbusd_epi32(totals[r][0], left_low, first);
            totals[r][1] = _mm512_dpbusd_epi32(totals[r][1], right_low, first);
            totals[r][0] = _mm512_dpbusd_epi32(totals[r][0], left_high, second);
            totals[r][1] = _mm512_dpbusd_epi32(totals[r][1], right_high, second);
        }
    }
}

inline __m512i points_of(const uint8_t* group, bool stored, int middle, int half) {
    if (!stored) return _mm512_set1_epi32(middle);
    const uint8_t* points = group + sizeof(GroupHead) + half * 32;
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(points)));
}

template <int ROWS, int BITS> void code_tile(const TileArgs& args) {
    const PackedView& view = *args.view;
    const int64_t a_stride = view.width;
    __m512 parts[ROWS][2];
    for (int r = 0; r < ROWS; ++r) parts[r][0] = parts[r][1] = _mm512_setzero_ps();
    for (int g = 0; g < view.groups; ++g) {
        const uint8_t* group = args.panel + sizeof(PanelHead) + g * view.group_bytes;
        const uint8_t* data = group + sizeof(GroupHead) * (view.zeros ? 2 : 1);
        const int8_t* a = args.values + static_cast<int64_t>(g) * view.group_padded;
        __m512i totals[ROWS][2];
        for (int half = 0; half < 2; ++half) {
            const __m512i point = points_of(group, view.zeros, BITS == 8 ? 128 : 8, half);
            for (int r = 0; r < ROWS; ++r) {
                const __m512i total = _mm512_set1_epi32(args.sums[static_cast<int64_t>(r) * view.groups + g]);
                totals[r][half] = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_mullo_epi32(point, total));
            }
        }
        if constexpr (BITS == 8) add_int8<ROWS>(data, a, a_stride, view.group_padded, totals);
        else add_int4<ROWS>(data, a, a_stride, view.group_padded, totals);
        for (int half = 0; half < 2; ++half) {
            const __m512 scale = _mm512_cvtph_ps(
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + half * 32)));
            for (int r = 0; r < ROWS; ++r) {
                const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(args.scales[static_cast<int64_t>(r) * view.groups + g]));
                parts[r][half] = _mm512_add_ps(parts[r][half], _mm512_mul_ps(_mm512_cvtepi32_ps(totals[r][half]), both));
            }
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        float sums[kPanel];
        _mm512_storeu_ps(sums, parts[r][0]);
        _mm512_storeu_ps(sums + 16, parts[r][1]);
        finish_row(args, r, sums);
    }
}
