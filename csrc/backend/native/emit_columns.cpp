// Reductions whose rows do not lie in memory one element after the other, as those over leading dimensions:
// a vector's lanes are neighbouring rows, along the last outer dimension, and each row is walked element by
// element. No value crosses lanes, so what a row reduces to is a vector too.
//
// What a later pass needs again is computed again. Several vectors of rows are computed side by side, so that
// whole cache lines are read.
#include <unordered_map>

#include "backend/native/emit_frame.h"

namespace flashpoint::native {
namespace {

constexpr int kSideBySide = 4;
constexpr int64_t kChunk = 64;  // of a row: sums of chunks are added up, for accuracy

class ColumnEmitter : private KernelFrame {
 public:
  ColumnEmitter(llvm::Module& module, const Kernel& kernel, const EmitTarget& target)
      : KernelFrame(module, kernel, target),
        outer_(kernel.dims.size() - static_cast<size_t>(kernel.inner)),
        width_(kernel.dims[outer_ - 1]) {
    size_t size = 4;
    for (size_t i = 0; i < kernel.ops.size(); ++i) {
      const KernelOp& op = kernel.ops[i];
      if (plan_.is_used(i) && op.prim != Prim::constant) size = std::max(size, c10::elementSize(op.dtype));
    }
    lanes_ = target.vector_bytes / static_cast<int>(size);
  }

  void emit(const std::string& name) {
    begin(name);
    if (outer_ == 1) {
      emit_width(function_->getArg(1), function_->getArg(2));
    } else {
      loop(function_->getArg(1), function_->getArg(2), 1, false, [&](Value* row) {
        row_position_ = unravel(row, 0, outer_ - 1);
        emit_width(i64(0), i64(width_));
      });
    }
    b_.CreateRetVoid();
  }

 private:
  void emit_width(Value* begin, Value* end) {
    const int64_t block = int64_t{lanes_} * kSideBySide;
    if (width_ >= block) {
      Value* rest = b_.CreateURem(b_.CreateSub(end, begin), i64(block));
      Value* whole = b_.CreateSub(end, rest);
      loop(begin, whole, block, false, [&](Value* column) { emit_rows(column, kSideBySide, nullptr); });
      begin = whole;
    }
    if (width_ % block == 0) return;
    loop(begin, end, lanes_, false, [&](Value* column) {
      Value* left = b_.CreateVectorSplat(static_cast<unsigned>(lanes_), b_.CreateSub(end, column));
      emit_rows(column, 1, b_.CreateICmpSLT(numbers_of_lanes(1), left));
    });
  }

  // The rows from `column` on along the last outer dimension: so many vectors of them.
  void emit_rows(Value* column, int copies, Value* mask) {
    mask_ = mask;
    copies_ = static_cast<size_t>(copies);
    columns_.clear();
    for (int u = 0; u < copies; ++u) {
      columns_.push_back(u == 0 ? column : b_.CreateAdd(column, i64(int64_t{u} * lanes_)));
    }
    rows_.assign(copies_, {});
    emit_row_ops(0);
    for (pass_ = 0; pass_ < plan_.pass_count(); ++pass_) {
      emit_pass();
      emit_row_ops(pass_ + 1);
    }
    for (const Store& store : kernel_.stores) {
      if (!plan_.is_row_store(store)) continue;
      for (size_t u = 0; u < copies_; ++u) {
        Value* value = prims_.before_store(row_value(u, store.op), dtype_of(store));
        store_at(store, value, row_base(u, store.access));
      }
    }
  }

  void emit_row_ops(int available) {
    for (size_t i = 0; i < kernel_.ops.size(); ++i) {
      const KernelOp& op = kernel_.ops[i];
      if (!plan_.is_row(i) || plan_.when(i) != available || is_reduction(op.prim)) continue;
      if (op.prim == Prim::constant || !plan_.is_used(i)) continue;
      for (size_t u = 0; u < copies_; ++u) {
        const bool reads = op.prim == Prim::load || op.prim == Prim::index;
        rows_[u][i] = value_of(
            i, [&](int32_t k) { return row_value(u, k); }, reads ? row_base(u, op.access) : nullptr);
      }
    }
  }

  Value* row_value(size_t u, int32_t index) {
    const KernelOp& op = kernel_.ops[static_cast<size_t>(index)];
    if (op.prim == Prim::constant) return prims_.number(op.number, op.dtype, lanes_);
    return rows_[u].at(static_cast<size_t>(index));
  }

  int64_t lane_stride(const Access& access) const { return access.strides[outer_ - 1]; }

  // Elements from the buffer's start to the first lane of the row.
  Value* row_base(size_t u, const Access& access) {
    return plus(add_offset(nullptr, access, row_position_, 0), columns_[u], lane_stride(access));
  }

  Value* plus(Value* base, Value* position, int64_t stride) {
    if (stride == 0) return base;
    Value* step = stride == 1 ? position : b_.CreateMul(position, i64(stride));
    return base == nullptr ? step : b_.CreateAdd(base, step);
  }

  template <typename Operand>
  Value* value_of(size_t i, Operand&& operand, Value* base) {
    const KernelOp& op = kernel_.ops[i];
    if (op.prim == Prim::load) {
      Value* pointer = address(op.access, op.dtype, base);
      return prims_.after_load(load_lanes(pointer, op.dtype, lane_stride(op.access), mask_), op.dtype);
    }
    if (op.prim == Prim::index) {
      Value* first = i64(op.access.offset);
      if (base != nullptr) first = b_.CreateAdd(base, first);
      return b_.CreateAdd(b_.CreateVectorSplat(static_cast<unsigned>(lanes_), first),
                          numbers_of_lanes(lane_stride(op.access)));
    }
    return compute(i, lanes_, operand, base);
  }

  void store_at(const Store& store, Value* value, Value* base) {
    const ScalarType dtype = dtype_of(store);
    store_lanes(value, address(store.access, dtype, base), dtype, lane_stride(store.access), mask_);
  }

  // ---- a walk over the rows

  void emit_pass() {
    slots_.clear();
    for (size_t i : plan_.reductions(pass_)) {
      const KernelOp& op = kernel_.ops[i];
      for (size_t u = 0; u < copies_; ++u) {
        slots_.push_back(local(prims_.widen(prims_.register_type(op.dtype), lanes_)));
        b_.CreateStore(prims_.neutral(op.prim, op.dtype, lanes_), slots_.back());
      }
    }
    position_.clear();
    walk(outer_);
    size_t next = 0;
    for (size_t i : plan_.reductions(pass_)) {
      for (size_t u = 0; u < copies_; ++u, ++next) {
        rows_[u][i] = b_.CreateLoad(slots_[next]->getAllocatedType(), slots_[next]);
      }
    }
  }

  void walk(size_t dim) {
    const int64_t size = kernel_.dims[dim];
    if (dim + 1 < kernel_.dims.size()) {
      loop(i64(0), i64(size), 1, true, [&](Value* at) {
        position_.push_back(at);
        walk(dim + 1);
        position_.pop_back();
      });
      return;
    }
    if (size <= 2 * kChunk) {
      walk_chunk(i64(0), i64(size));
      return;
    }
    loop(i64(0), i64(size), kChunk, true, [&](Value* at) {
      Value* stop = b_.CreateAdd(at, i64(kChunk));
      if (size % kChunk != 0) stop = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, stop, i64(size));
      walk_chunk(at, stop);
    });
  }

  // Elements [begin, end) of the last dimension; what they reduce to is kept in registers meanwhile.
  void walk_chunk(Value* begin, Value* end) {
    // Addresses, as far as they do not change.
    std::vector<std::vector<Value*>> loads(copies_, std::vector<Value*>(kernel_.ops.size()));
    std::vector<std::vector<Value*>> stores(copies_, std::vector<Value*>(kernel_.stores.size()));
    const auto base = [&](size_t u, const Access& access) {
      return add_offset(row_base(u, access), access, position_, outer_);
    };
    for (size_t u = 0; u < copies_; ++u) {
      for (size_t i = 0; i < kernel_.ops.size(); ++i) {
        const KernelOp& op = kernel_.ops[i];
        const bool reads = op.prim == Prim::load || op.prim == Prim::index;
        if (reads && plan_.is_used(i) && !plan_.is_row(i)) loads[u][i] = base(u, op.access);
      }
      for (size_t k = 0; k < kernel_.stores.size(); ++k) {
        if (!plan_.is_row_store(kernel_.stores[k])) stores[u][k] = base(u, kernel_.stores[k].access);
      }
    }
    auto* before = b_.GetInsertBlock();
    auto* head = BasicBlock::Create(module_.getContext(), "walk", function_);
    auto* done = BasicBlock::Create(module_.getContext(), "walked", function_);
    b_.CreateBr(head);
    b_.SetInsertPoint(head);
    auto* at = b_.CreatePHI(b_.getInt64Ty(), 2);
    at->addIncoming(begin, before);
    std::vector<llvm::PHINode*> sums;
    for (size_t i : plan_.reductions(pass_)) {
      const KernelOp& op = kernel_.ops[i];
      for (size_t u = 0; u < copies_; ++u) {
        sums.push_back(b_.CreatePHI(prims_.widen(prims_.register_type(op.dtype), lanes_), 2));
        sums.back()->addIncoming(prims_.neutral(op.prim, op.dtype, lanes_), before);
      }
    }
    std::vector<std::unordered_map<size_t, Value*>> values(copies_);
    const auto full = [&](auto& self, size_t u, int32_t index) -> Value* {
      const auto i = static_cast<size_t>(index);
      const KernelOp& op = kernel_.ops[i];
      if (op.prim == Prim::constant || plan_.is_row(i)) return row_value(u, index);
      if (const auto known = values[u].find(i); known != values[u].end()) return known->second;
      const bool reads = op.prim == Prim::load || op.prim == Prim::index;
      Value* where = reads ? plus(loads[u][i], at, op.access.strides.back()) : nullptr;
      return values[u][i] = value_of(
                 i, [&](int32_t k) { return self(self, u, k); }, where);
    };
    std::vector<Value*> next;
    for (size_t i : plan_.reductions(pass_)) {
      const KernelOp& op = kernel_.ops[i];
      for (size_t u = 0; u < copies_; ++u) {
        Value* value = full(full, u, op.operands[0]);
        next.push_back(prims_.combine(op.prim, op.dtype, sums[next.size()], value));
      }
    }
    for (size_t u = 0; u < copies_; ++u) {
      // All values before the first store: it may be to what another value is loaded from.
      std::vector<Value*> stored(kernel_.stores.size());
      for (size_t k = 0; k < kernel_.stores.size(); ++k) {
        const Store& store = kernel_.stores[k];
        if (plan_.is_row_store(store) || plan_.store_pass(store) != pass_) continue;
        stored[k] = prims_.before_store(full(full, u, store.op), dtype_of(store));
      }
      for (size_t k = 0; k < kernel_.stores.size(); ++k) {
        const Store& store = kernel_.stores[k];
        if (stored[k] == nullptr) continue;
        store_at(store, stored[k], plus(stores[u][k], at, store.access.strides.back()));
      }
    }
    Value* following = b_.CreateAdd(at, i64(1));
    at->addIncoming(following, head);
    for (size_t k = 0; k < sums.size(); ++k) sums[k]->addIncoming(next[k], head);
    b_.CreateCondBr(b_.CreateICmpSLT(following, end), head, done);
    b_.SetInsertPoint(done);
    size_t k = 0;
    for (size_t i : plan_.reductions(pass_)) {
      const KernelOp& op = kernel_.ops[i];
      for (size_t u = 0; u < copies_; ++u, ++k) {
        Value* so_far = b_.CreateLoad(slots_[k]->getAllocatedType(), slots_[k]);
        b_.CreateStore(prims_.combine(op.prim, op.dtype, so_far, next[k]), slots_[k]);
      }
    }
  }

  const size_t outer_;
  const int64_t width_;  // of the last outer dimension
  int pass_ = 0;
  size_t copies_ = 1;
  Value* mask_ = nullptr;
  std::vector<Value*> columns_;                           // per copy: where its lanes begin
  std::vector<std::unordered_map<size_t, Value*>> rows_;  // per copy
  std::vector<llvm::AllocaInst*> slots_;                  // per reduction and copy
  std::vector<Value*> position_;                          // along the inner dimensions but the last
};

}  // namespace

void emit_by_columns(llvm::Module& module, const Kernel& kernel, const std::string& name,
                     const EmitTarget& target) {
  ColumnEmitter(module, kernel, target).emit(name);
}

}  // namespace flashpoint::native
