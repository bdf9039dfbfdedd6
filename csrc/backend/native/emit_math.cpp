// exp, tanh and erf of float32, inline: reduction plus polynomials fitted to the relative error.
//
// Largest errors found against float64 over all finite floats are listed in docs/design/native.md. NaN stays
// NaN because every clamp compares in the direction that lets it through.
#include <llvm/IR/Intrinsics.h>

#include <bit>

#include "backend/native/emit.h"

namespace flashpoint::native {

using llvm::Value;

// 2^n * e^r with n integral and |r| <= ln(2) / 2; 2^n in two factors, so that results may be denormal.
Value* PrimEmitter::exp_float(Value* x, bool bounded) {
  llvm::Type* type = x->getType();
  llvm::Type* ints = same_shape(b_.getInt32Ty(), type);
  const auto horner = [&](Value* p, Value* r, double c) { return fma(p, r, real(type, c)); };
  if (!bounded) {
    x = b_.CreateSelect(b_.CreateFCmpOLT(x, real(type, -104)), real(type, -104), x);
    x = b_.CreateSelect(b_.CreateFCmpOGT(x, real(type, 89)), real(type, 89), x);
  }
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, for NaN some bits that do no harm.
  const float magic = 12582912.0f;
  Value* shifted = fma(x, real(type, 1.44269504088896341), real(type, magic));
  Value* n = b_.CreateFSub(shifted, real(type, magic));
  Value* bits = b_.CreateSub(b_.CreateBitCast(shifted, ints), integer(ints, std::bit_cast<int32_t>(magic)));
  Value* r = fma(n, real(type, -0.693145751953125), x);
  r = fma(n, real(type, -1.42860677e-6), r);
  Value* p = real(type, 0.001381455804221332);
  for (double c : {0.008368736132979393, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552}) {
    p = horner(p, r, c);
  }
  p = b_.CreateFAdd(fma(b_.CreateFMul(p, r), r, r), real(type, 1));
  const auto power = [&](Value* k) {
    return b_.CreateBitCast(b_.CreateShl(b_.CreateAdd(k, integer(ints, 127)), integer(ints, 23)), type);
  };
  if (bounded) return b_.CreateFMul(p, power(bits));
  Value* half = b_.CreateAShr(bits, integer(ints, 1));
  return b_.CreateFMul(b_.CreateFMul(p, power(half)), power(b_.CreateSub(bits, half)));
}

// An odd polynomial near zero, 1 - 2 / (e^2|x| + 1) elsewhere.
Value* PrimEmitter::tanh_float(Value* x) {
  llvm::Type* type = x->getType();
  Value* y = b_.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, x);
  Value* twice = b_.CreateFAdd(y, y);
  Value* e = exp_float(b_.CreateSelect(b_.CreateFCmpOGT(twice, real(type, 40)), real(type, 40), twice), true);
  Value* large = b_.CreateFSub(real(type, 1), b_.CreateFDiv(real(type, 2), b_.CreateFAdd(e, real(type, 1))));
  Value* z = b_.CreateFMul(x, x);
  Value* p = real(type, -0.005704978480935097);
  for (double c : {0.020639078691601753, -0.05373971164226532, 0.13331441581249237, -0.3333328068256378}) {
    p = fma(p, z, real(type, c));
  }
  Value* small = fma(b_.CreateFMul(p, z), y, y);
  Value* result = b_.CreateSelect(b_.CreateFCmpOLT(y, real(type, 0.625)), small, large);
  return b_.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, result, x);  // of zero too
}

// An odd polynomial near zero, 1 - e^q(|x|) elsewhere with q fitted to log(erfc).
Value* PrimEmitter::erf_float(Value* x) {
  llvm::Type* type = x->getType();
  Value* y = b_.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, x);
  Value* t = b_.CreateSelect(b_.CreateFCmpOGT(y, real(type, 4)), real(type, 4), y);
  Value* q = real(type, 0.0001949467696249485);
  for (double c : {-0.0030336924828588963, 0.022189777344465256, -0.10385637730360031, -0.6372657418251038,
                   -1.1276273727416992, -0.00020700848835986108}) {
    q = fma(q, t, real(type, c));
  }
  Value* large = b_.CreateFSub(real(type, 1), exp_float(q, true));
  large = b_.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, large, x);
  Value* z = b_.CreateFMul(x, x);
  Value* p = real(type, -0.0005862079560756683);
  for (double c : {0.004967506043612957, -0.026748863980174065, 0.11281320452690125, -0.37612447142601013,
                   1.1283791065216064}) {
    p = fma(p, z, real(type, c));
  }
  return b_.CreateSelect(b_.CreateFCmpOLT(y, real(type, 0.93)), b_.CreateFMul(p, x), large);
}

}  // namespace flashpoint::native
