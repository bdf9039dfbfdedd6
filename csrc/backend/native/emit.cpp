#include "backend/native/emit.h"

#include <algorithm>
#include <unordered_map>

#include "backend/native/emit_frame.h"
#include "base/check.h"

namespace flashpoint::native {
namespace {

using c10::ScalarType;
using llvm::BasicBlock;
using llvm::Value;

class KernelEmitter : private KernelFrame {
 public:
  KernelEmitter(llvm::Module& module, const Kernel& kernel, const EmitTarget& target)
      : KernelFrame(module, kernel, target) {
    const size_t outer = kernel.dims.size() - static_cast<size_t>(kernel.inner);
    columns_ = kernel.inner > 0 ? kernel.dims.back() : 1;
    short_ = kernel.short_columns();
    if (short_ > 1) {
      columns_ = kernel.columns();
    } else {
      for (size_t d = outer; d + 1 < kernel.dims.size(); ++d) segments_ *= kernel.dims[d];
    }
    lanes_ = target.vector_bytes / (plan_.has_wide_lanes() ? 8 : 4);
  }

  void emit(const std::string& name) {
    begin(name);
    if (kernel_.flat()) {
      emit_flat(function_->getArg(1), function_->getArg(2));
    } else {
      loop(function_->getArg(1), function_->getArg(2), 1, false, [&](Value* row) { emit_row(row); });
    }
    b_.CreateRetVoid();
  }

 private:
  // ---- rows

  void emit_row(Value* row) {
    const size_t outer = kernel_.dims.size() - static_cast<size_t>(kernel_.inner);
    row_position_ = unravel(row, 0, outer);
    emit_passes();
  }

  void emit_flat(Value* begin, Value* end) {
    row_position_.clear();
    flat_begin_ = begin;
    flat_end_ = end;
    emit_passes();
  }

  void emit_passes() {
    row_values_.clear();
    emit_row_ops(0);
    for (int pass = 0; pass < plan_.pass_count(); ++pass) {
      emit_pass(pass);
      emit_row_ops(pass + 1);
    }
    for (const Store& store : kernel_.stores) {
      if (!plan_.is_row_store(store)) continue;
      Value* value = prims_.before_store(row_value(store.op), dtype_of(store));
      b_.CreateStore(value, address(store.access, dtype_of(store), row_base(store.access)));
    }
  }

  void emit_row_ops(int available) {
    for (size_t i = 0; i < kernel_.ops.size(); ++i) {
      const KernelOp& op = kernel_.ops[i];
      if (!plan_.is_row(i) || plan_.when(i) != available || is_reduction(op.prim)) continue;
      if (op.prim == Prim::constant || !plan_.is_used(i)) continue;
      // Arithmetic has no access.
      Value* base = op.prim == Prim::load || op.prim == Prim::index ? row_base(op.access) : nullptr;
      row_values_[i] = compute(
          i, 1, [&](int32_t k) { return row_value(k); }, base);
    }
  }

  Value* row_value(int32_t i) {
    const KernelOp& op = kernel_.ops[static_cast<size_t>(i)];
    if (op.prim == Prim::constant) return prims_.number(op.number, op.dtype, 1);
    return row_values_.at(static_cast<size_t>(i));
  }

  // Elements from the buffer's start to the row's, as far as it depends on the row.
  Value* row_base(const Access& access) { return add_offset(nullptr, access, row_position_, 0); }

  // ---- passes over the columns of a row

  struct Accumulator {
    size_t op;
    std::vector<llvm::AllocaInst*> slots;  // one per copy of the body
  };

  void emit_pass(int pass) {
    pass_ = pass;
    splats_.clear();
    const int64_t whole = columns_ - columns_ % lanes_;
    int unroll = plan_.unroll(pass);
    while (unroll > 1 && (columns_ % (lanes_ * unroll) != 0 || columns_ < 2 * lanes_ * unroll)) unroll /= 2;
    accumulators_.clear();
    for (size_t i : plan_.reductions(pass)) {
      Accumulator accumulator{i, {}};
      const KernelOp& op = kernel_.ops[i];
      for (int u = 0; u < unroll; ++u) {
        accumulator.slots.push_back(local(prims_.widen(prims_.register_type(op.dtype), lanes_)));
        b_.CreateStore(prims_.neutral(op.prim, op.dtype, lanes_), accumulator.slots.back());
      }
      accumulators_.push_back(std::move(accumulator));
    }
    for (size_t i : plan_.splats(pass)) {
      splats_[i] = b_.CreateVectorSplat(static_cast<unsigned>(lanes_), row_value(static_cast<int32_t>(i)));
    }
    segment_ = nullptr;
    segment_position_.clear();
    if (segments_ > 1) {
      const size_t outer = kernel_.dims.size() - static_cast<size_t>(kernel_.inner);
      loop(i64(0), i64(segments_), 1, true, [&](Value* t) {
        segment_ = t;
        segment_position_ = unravel(t, outer, static_cast<size_t>(kernel_.inner) - 1);
        emit_columns(whole, unroll);
      });
    } else {
      emit_columns(whole, unroll);
    }
    for (const Accumulator& accumulator : accumulators_) {
      const KernelOp& op = kernel_.ops[accumulator.op];
      std::vector<Value*> parts;
      for (auto* slot : accumulator.slots) parts.push_back(b_.CreateLoad(slot->getAllocatedType(), slot));
      while (parts.size() > 1) {
        for (size_t k = 0; k < parts.size() / 2; ++k) {
          parts[k] = prims_.combine(op.prim, op.dtype, parts[k], parts[k + parts.size() / 2]);
        }
        parts.resize(parts.size() / 2);
      }
      row_values_[accumulator.op] = prims_.reduce_lanes(op.prim, op.dtype, parts[0]);
    }
  }

  void emit_columns(int64_t whole, int unroll) {
    const auto body = [&](Value* column) {
      for (int u = 0; u < unroll; ++u) {
        emit_body(u == 0 ? column : b_.CreateAdd(column, i64(int64_t{u} * lanes_)), u, 0);
      }
    };
    const int tail = static_cast<int>(columns_ - whole);
    if (flat_begin_ != nullptr) {
      Value* stop = flat_end_;
      if (tail != 0) stop = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, flat_end_, i64(whole));
      if (whole > 0) loop(flat_begin_, stop, int64_t{lanes_} * unroll, false, body);
      if (tail != 0) {
        auto* last = BasicBlock::Create(module_.getContext(), "last", function_);
        auto* done = BasicBlock::Create(module_.getContext(), "done", function_);
        b_.CreateCondBr(b_.CreateICmpSGT(flat_end_, i64(whole)), last, done);
        b_.SetInsertPoint(last);
        emit_body(i64(whole), 0, tail);
        b_.CreateBr(done);
        b_.SetInsertPoint(done);
      }
      return;
    }
    if (whole == int64_t{lanes_} * unroll) {
      body(i64(0));
    } else if (whole > 0) {
      loop(i64(0), i64(whole), int64_t{lanes_} * unroll, true, body);
    }
    if (tail != 0) emit_body(i64(whole), 0, tail);
  }

  // One vector of columns from `column` on. `tail`: only so many lanes are inside the row, 0 for all.
  void emit_body(Value* column, int copy, int tail) {
    column_ = column;
    tail_ = tail;
    mask_ = tail == 0 ? nullptr : first_lanes(lanes_, tail);
    values_.clear();
    for (const Accumulator& accumulator : accumulators_) {
      const KernelOp& op = kernel_.ops[accumulator.op];
      Value* value = full_value(op.operands[0]);
      if (mask_ != nullptr) value = b_.CreateSelect(mask_, value, prims_.neutral(op.prim, op.dtype, lanes_));
      auto* slot = accumulator.slots[static_cast<size_t>(copy)];
      Value* so_far = b_.CreateLoad(slot->getAllocatedType(), slot);
      b_.CreateStore(prims_.combine(op.prim, op.dtype, so_far, value), slot);
    }
    for (size_t i : plan_.spills(pass_)) {
      b_.CreateAlignedStore(full_value(static_cast<int32_t>(i)), scratch(i), llvm::Align(4));
    }
    // All values before the first store: it may be to what another value is loaded from.
    std::vector<std::pair<const Store*, Value*>> stores;
    for (const Store& store : kernel_.stores) {
      if (plan_.is_row_store(store) || plan_.store_pass(store) != pass_) continue;
      stores.emplace_back(&store, prims_.before_store(full_value(store.op), dtype_of(store)));
    }
    for (const auto& [store, value] : stores) emit_store(*store, value);
  }

  Value* full_value(int32_t index) {
    const auto i = static_cast<size_t>(index);
    const KernelOp& op = kernel_.ops[i];
    if (op.prim == Prim::constant) return prims_.number(op.number, op.dtype, lanes_);
    if (plan_.is_row(i)) return splats_.at(i);
    if (const auto known = values_.find(i); known != values_.end()) return known->second;
    Value* value = nullptr;
    if (op.prim == Prim::load) {
      value = prims_.after_load(emit_load(op), op.dtype);
    } else if (op.prim == Prim::index) {
      value = emit_index(op);
    } else if (plan_.is_spilled(i) && plan_.when(i) < pass_) {
      value = b_.CreateAlignedLoad(prims_.widen(prims_.register_type(op.dtype), lanes_), scratch(i),
                                   llvm::Align(4));
    } else {
      value = compute(
          i, lanes_, [&](int32_t k) { return full_value(k); }, nullptr);
    }
    return values_[i] = value;
  }

  // Where a spilled value's vector of these columns is kept.
  Value* scratch(size_t i) {
    llvm::Type* type = prims_.register_type(kernel_.ops[i].dtype);
    auto& slot = scratch_[i];
    const int64_t padded = (columns_ + lanes_ - 1) / lanes_ * lanes_;
    if (slot == nullptr) slot = local(type, i64(padded * segments_));
    Value* at = column_;
    if (segment_ != nullptr) at = b_.CreateAdd(b_.CreateMul(segment_, i64(padded)), at);
    return b_.CreateGEP(type, slot, at);
  }

  Value* base_of(const Access& access) {
    Value* base = row_base(access);
    const size_t outer = kernel_.dims.size() - static_cast<size_t>(kernel_.inner);
    return add_offset(base, access, segment_position_, outer);
  }

  int64_t column_stride(const Access& access) const { return kernel_.inner > 0 ? access.strides.back() : 0; }

  // Whether columns lie at one distance from each other.
  bool is_even(const Access& access) const {
    return short_ == 1 || access.strides[kernel_.dims.size() - 2] == short_ * access.strides.back();
  }

  // From a column that begins a vector, as the columns of both dimensions are counted.
  int64_t distance(const Access& access, int64_t columns) const {
    if (is_even(access)) return columns * column_stride(access);
    return columns / short_ * access.strides[kernel_.dims.size() - 2] +
           columns % short_ * access.strides.back();
  }

  // Elements from the start to this vector's first column.
  Value* at_column(const Access& access) {
    Value* base = base_of(access);
    const auto plus = [&](Value* position, int64_t stride) {
      if (stride == 0) return;
      Value* step = stride == 1 ? position : b_.CreateMul(position, i64(stride));
      base = base == nullptr ? step : b_.CreateAdd(base, step);
    };
    if (is_even(access)) {
      plus(column_, column_stride(access));
      return base;
    }
    plus(b_.CreateUDiv(column_, i64(short_)), access.strides[kernel_.dims.size() - 2]);
    if (lanes_ < short_) plus(b_.CreateURem(column_, i64(short_)), access.strides.back());
    return base;
  }

  Value* emit_load(const KernelOp& op) {
    Value* pointer = address(op.access, op.dtype, at_column(op.access));
    if (is_even(op.access)) return load_lanes(pointer, op.dtype, column_stride(op.access), mask_);
    const int64_t inside = op.access.strides.back();
    const int64_t outside = op.access.strides[kernel_.dims.size() - 2];
    const int narrow = lanes_ / static_cast<int>(short_);
    llvm::Type* scalar = prims_.memory_type(op.dtype);
    const llvm::Align align(c10::elementSize(op.dtype));
    std::vector<int> lanes(static_cast<size_t>(lanes_));
    if (inside == 0 && outside == 1 && narrow > 1) {  // each element several times
      auto* type = llvm::FixedVectorType::get(scalar, static_cast<unsigned>(narrow));
      Value* few = nullptr;
      if (tail_ == 0) {
        few = b_.CreateAlignedLoad(type, pointer, align);
      } else {
        few = b_.CreateMaskedLoad(type, pointer, align, first_lanes(narrow, tail_ / static_cast<int>(short_)),
                                  llvm::Constant::getNullValue(type));
      }
      for (int k = 0; k < lanes_; ++k) lanes[static_cast<size_t>(k)] = k / static_cast<int>(short_);
      return b_.CreateShuffleVector(few, lanes);
    }
    if (inside == 1 && outside == 0 && narrow > 0) {  // the same few elements again and again
      auto* type = llvm::FixedVectorType::get(scalar, static_cast<unsigned>(short_));
      for (int k = 0; k < lanes_; ++k) lanes[static_cast<size_t>(k)] = k % static_cast<int>(short_);
      return b_.CreateShuffleVector(b_.CreateAlignedLoad(type, pointer, align), lanes);
    }
    Value* result =
        llvm::Constant::getNullValue(llvm::FixedVectorType::get(scalar, static_cast<unsigned>(lanes_)));
    for (int k = 0; k < (tail_ == 0 ? lanes_ : tail_); ++k) {
      Value* one = b_.CreateAlignedLoad(scalar, lane_address(scalar, pointer, distance(op.access, k)), align);
      result = b_.CreateInsertElement(result, one, static_cast<uint64_t>(k));
    }
    return result;
  }

  void emit_store(const Store& store, Value* value) {
    const ScalarType dtype = dtype_of(store);
    Value* pointer = address(store.access, dtype, at_column(store.access));
    if (is_even(store.access)) {
      store_lanes(value, pointer, dtype, column_stride(store.access), mask_);
      return;
    }
    llvm::Type* scalar = prims_.memory_type(dtype);
    for (int k = 0; k < (tail_ == 0 ? lanes_ : tail_); ++k) {
      b_.CreateAlignedStore(b_.CreateExtractElement(value, static_cast<uint64_t>(k)),
                            lane_address(scalar, pointer, distance(store.access, k)),
                            llvm::Align(c10::elementSize(dtype)));
    }
  }

  Value* emit_index(const KernelOp& op) {
    Value* base = at_column(op.access);
    base = base == nullptr ? i64(op.access.offset) : b_.CreateAdd(base, i64(op.access.offset));
    llvm::SmallVector<llvm::Constant*, 16> lanes;
    for (int k = 0; k < lanes_; ++k) {
      lanes.push_back(b_.getInt64(static_cast<uint64_t>(distance(op.access, k))));
    }
    return b_.CreateAdd(b_.CreateVectorSplat(static_cast<unsigned>(lanes_), base),
                        llvm::ConstantVector::get(lanes));
  }

  llvm::Constant* first_lanes(int lanes, int count) {
    llvm::SmallVector<llvm::Constant*, 16> mask;
    for (int k = 0; k < lanes; ++k) mask.push_back(b_.getInt1(k < count));
    return llvm::ConstantVector::get(mask);
  }

  int64_t columns_ = 1;   // of the last inner dimension, or of the last two
  int64_t short_ = 1;     // Kernel::short_columns
  int64_t segments_ = 1;  // points of the inner dimensions before it
  Value* flat_begin_ = nullptr;
  Value* flat_end_ = nullptr;
  std::unordered_map<size_t, Value*> row_values_;
  // of the pass or body being emitted
  int pass_ = 0;
  std::vector<Accumulator> accumulators_;
  std::unordered_map<size_t, Value*> splats_;
  std::unordered_map<size_t, Value*> values_;
  std::unordered_map<size_t, llvm::AllocaInst*> scratch_;
  Value* segment_ = nullptr;
  std::vector<Value*> segment_position_;
  Value* column_ = nullptr;
  llvm::Constant* mask_ = nullptr;
  int tail_ = 0;
};

}  // namespace

void emit_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name,
                 const EmitTarget& target) {
  if (kernel.by_columns()) return emit_by_columns(module, kernel, name, target);
  KernelEmitter(module, kernel, target).emit(name);
}

}  // namespace flashpoint::native
