// The exponential of NumPy, bit for bit: two classes whose scores differ in the last bit alone are ranked as in Python.
//
// On x86 with AVX2, NumPy computes float32 exponentials by a method of its own: x = n ln 2 + r, with ln 2 in two parts,
// and e^r as a quotient of two polynomials (numpy/_core/src/umath/loops_exponent_log.dispatch.c.src). Elsewhere it
// takes the system's `expf`, and so does this file.
#include "sigmoid.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace pcaseg {
namespace {

constexpr float largest = 87;    // of exponents, as in Python: e^88 is the last that float32 holds
constexpr float smallest = -80;  // below it, 1 + e^x is 1

#if defined(__x86_64__)

float power_of_two(float whole) {
  const int32_t bits = (int32_t(whole) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

__attribute__((target("avx2,fma"))) void sigmoid_avx2(float* values, size_t count) {
  constexpr float log2_e = 1.44269504088896341f, round = 0x1.8p23f;  // adding `round` leaves no place for fractions
  constexpr float ln2_high = 6.93145752e-1f, ln2_low = 1.42860677e-6f;
  for (size_t i = 0; i < count; ++i) {
    const float x = std::min(std::max(-values[i], smallest), largest);
    const float n = (x * log2_e + round) - round;
    const float r = __builtin_fmaf(n, -ln2_low, __builtin_fmaf(n, -ln2_high, x));
    float above = 5.082762527590693718096e-04f;
    for (float coefficient : {6.757896990527504603057e-03f, 5.114512081637298353406e-02f, 2.473615434895520810817e-01f,
                              7.257664613233124478488e-01f, 9.999999999980870924916e-01f})
      above = __builtin_fmaf(above, r, coefficient);
    float below = 2.159509375685829852307e-02f;
    for (float coefficient : {-2.742335390411667452936e-01f, 1.0f}) below = __builtin_fmaf(below, r, coefficient);
    values[i] = 1 / (1 + above / below * power_of_two(n));
  }
}

#endif

void sigmoid_plain(float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = 1 / (1 + std::exp(std::min(-values[i], largest)));
}

}  // namespace

void sigmoid(float* values, size_t count) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return sigmoid_avx2(values, count);
#endif
  sigmoid_plain(values, count);
}

}  // namespace pcaseg
