/* What this processor can do with so many threads, printed as JSON: reads from memory in GB/s, and multiply-adds from
 * registers in GOP/s (a multiply-add counts as two operations).  gcc -O3 -march=native -fopenmp limits.c -o limits
 *
 * int8: the best instructions for unsigned times signed bytes added into 32 bits: AVX-512 VNNI, AVX-VNNI, or on AVX2
 * the three of vpmaddubsw, vpmaddwd and vpaddd. fp32: fused multiply-add. Without AVX2 both are left to the compiler.
 */
#define _GNU_SOURCE
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { REPEATS = 7, CHAINS = 10 /* sums that do not wait for each other */ };
static const size_t BYTES = (size_t)1 << 30;
static const long TURNS = 20000000;

/* The compiler may not know what the value is: nothing is hoisted out of the loop. */
#define OPAQUE(value) __asm__ volatile("" : "+x"(value))
#define STEP(APPLY, sum) OPAQUE(a); sum = APPLY(sum, a, b);

#if defined(__AVX512VNNI__)
typedef __m512i codes; typedef __m512 floats;
#define INT8(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#define FP32(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#elif defined(__AVX512F__)
typedef __m256i codes; typedef __m512 floats;
#define INT8(sum, a, b) \
  _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#define FP32(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#elif defined(__AVX2__)
typedef __m256i codes; typedef __m256 floats;
#if defined(__AVXVNNI__)
#define INT8(sum, a, b) _mm256_dpbusd_avx_epi32(sum, a, b)
#else
#define INT8(sum, a, b) \
  _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#endif
#define FP32(sum, a, b) _mm256_fmadd_ps(a, b, sum)
#else
typedef uint32_t codes __attribute__((vector_size(16)));
typedef float floats __attribute__((vector_size(16)));
#define INT8(sum, a, b) ((sum) + (a) * (b))
#define FP32(sum, a, b) ((sum) + (a) * (b))
#endif

#define PEAK(name, type, APPLY, operations)                                                   \
  static double name(int threads) {                                                           \
    double begin = omp_get_wtime();                                                           \
    _Pragma("omp parallel num_threads(threads)") {                                            \
      type a = {0}, b = {0}, sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0}, sum4 = {0},      \
           sum5 = {0}, sum6 = {0}, sum7 = {0}, sum8 = {0}, sum9 = {0};                        \
      OPAQUE(b);                                                                              \
      for (long turn = 0; turn < TURNS / CHAINS; turn++) {                                    \
        STEP(APPLY, sum0) STEP(APPLY, sum1) STEP(APPLY, sum2) STEP(APPLY, sum3) STEP(APPLY, sum4)\
        STEP(APPLY, sum5) STEP(APPLY, sum6) STEP(APPLY, sum7) STEP(APPLY, sum8) STEP(APPLY, sum9)\
      }                                                                                       \
      OPAQUE(sum0); OPAQUE(sum1); OPAQUE(sum2); OPAQUE(sum3); OPAQUE(sum4);                   \
      OPAQUE(sum5); OPAQUE(sum6); OPAQUE(sum7); OPAQUE(sum8); OPAQUE(sum9);                   \
    }                                                                                         \
    return (double)(operations) * threads * TURNS / (omp_get_wtime() - begin) / 1e9;          \
  }

PEAK(int8_peak, codes, INT8, 2 * sizeof(codes))
PEAK(fp32_peak, floats, FP32, 2 * (sizeof(floats) / sizeof(float)))

static double bandwidth(const char *bytes, int threads) {
  double begin = omp_get_wtime();
#pragma omp parallel num_threads(threads)
  {
    size_t share = BYTES / threads;
    const uint64_t *words = (const uint64_t *)(bytes + share * omp_get_thread_num());
    typedef uint64_t wide __attribute__((vector_size(32)));
    wide sums[4] = {{0}};
    for (size_t word = 0; word < share / 8; word += 16) {
      __builtin_prefetch(words + word + 512);
      __builtin_prefetch(words + word + 520);
      for (int part = 0; part < 4; part++) sums[part] ^= *(const wide *)(words + word + 4 * part);
    }
    wide sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    OPAQUE(sum);
  }
  return BYTES / (omp_get_wtime() - begin) / 1e9;
}

static int ascending(const void *a, const void *b) {
  double difference = *(const double *)a - *(const double *)b;
  return (difference > 0) - (difference < 0);
}

int main(int count, char **words) {
  int threads = count > 1 ? atoi(words[1]) : 1;
  double values[3][REPEATS];
  char *bytes = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (bytes == MAP_FAILED) return perror("mmap"), 1;
  madvise(bytes, BYTES, MADV_HUGEPAGE);
  memset(bytes, 1, BYTES);
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    values[0][repeat] = bandwidth(bytes, threads);
    values[1][repeat] = int8_peak(threads);
    values[2][repeat] = fp32_peak(threads);
  }
  for (int row = 0; row < 3; row++) qsort(values[row], REPEATS, sizeof(double), ascending);
  printf("{\"read_gb_s\": %.2f, \"int8_gop_s\": %.1f, \"fp32_gop_s\": %.1f}\n", values[0][REPEATS / 2],
         values[1][REPEATS / 2], values[2][REPEATS / 2]);
  return 0;
}
