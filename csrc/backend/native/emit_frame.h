// What the two ways of emitting a kernel share: the function around it, loops, addresses, arithmetic.
//
// Used by emit.cpp and emit_columns.cpp only.
#pragma once

#include <string>
#include <vector>

#include "backend/native/emit.h"
#include "backend/native/passes.h"

namespace flashpoint::native {

class KernelFrame {
 protected:
  using Value = llvm::Value;
  using BasicBlock = llvm::BasicBlock;
  using ScalarType = c10::ScalarType;

  KernelFrame(llvm::Module& module, const Kernel& kernel, const EmitTarget& target)
      : module_(module),
        kernel_(kernel),
        plan_(kernel),
        b_(module.getContext()),
        prims_(b_, module, target.vector_bytes) {}

  // Opens the function; what is emitted next is its body.
  void begin(const std::string& name) {
    auto& context = module_.getContext();
    auto* type =
        llvm::FunctionType::get(b_.getVoidTy(), {b_.getPtrTy(), b_.getInt64Ty(), b_.getInt64Ty()}, false);
    function_ = llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, name, module_);
    function_->addFnAttr(llvm::Attribute::NoUnwind);
    entry_ = BasicBlock::Create(context, "entry", function_);
    auto* start = BasicBlock::Create(context, "start", function_);
    b_.SetInsertPoint(entry_);
    for (size_t i = 0; i < kernel_.buffers.size(); ++i) {
      Value* slot = b_.CreateConstInBoundsGEP1_64(b_.getPtrTy(), function_->getArg(0), i);
      buffers_.push_back(b_.CreateLoad(b_.getPtrTy(), slot));
    }
    b_.CreateBr(start);
    b_.SetInsertPoint(start);
  }

  Value* i64(int64_t value) { return b_.getInt64(static_cast<uint64_t>(value)); }

  llvm::AllocaInst* local(llvm::Type* type, Value* count = nullptr) {
    llvm::IRBuilder<> at(entry_, entry_->begin());
    auto* slot = at.CreateAlloca(type, count);
    slot->setAlignment(llvm::Align(64));
    return slot;
  }

  // for (i = begin; i < end; i += step) body(i), tested at the bottom.
  template <typename Body>
  void loop(Value* begin, Value* end, int64_t step, bool surely_runs, Body&& body) {
    auto& context = module_.getContext();
    auto* head = BasicBlock::Create(context, "loop", function_);
    auto* exit = BasicBlock::Create(context, "exit", function_);
    auto* counter = local(b_.getInt64Ty());
    counter->setAlignment(llvm::Align(8));
    b_.CreateStore(begin, counter);
    if (surely_runs) {
      b_.CreateBr(head);
    } else {
      b_.CreateCondBr(b_.CreateICmpSLT(begin, end), head, exit);
    }
    b_.SetInsertPoint(head);
    Value* i = b_.CreateLoad(b_.getInt64Ty(), counter);
    body(i);
    Value* next = b_.CreateAdd(i, i64(step));
    b_.CreateStore(next, counter);
    b_.CreateCondBr(b_.CreateICmpSLT(next, end), head, exit);
    b_.SetInsertPoint(exit);
  }

  // Position of a row, or of a segment of it, along dimensions [first, first + count).
  std::vector<Value*> unravel(Value* index, size_t first, size_t count) {
    std::vector<Value*> position(count);
    for (size_t d = count; d-- > 0;) {
      if (d == 0) {
        position[d] = index;
        break;
      }
      Value* size = i64(kernel_.dims[first + d]);
      position[d] = b_.CreateURem(index, size);
      index = b_.CreateUDiv(index, size);
    }
    return position;
  }

  Value* add_offset(Value* base, const Access& access, const std::vector<Value*>& position, size_t first) {
    for (size_t d = 0; d < position.size(); ++d) {
      const int64_t stride = access.strides[first + d];
      if (stride == 0) continue;
      Value* step = stride == 1 ? position[d] : b_.CreateMul(position[d], i64(stride));
      base = base == nullptr ? step : b_.CreateAdd(base, step);
    }
    return base;
  }

  ScalarType dtype_of(const Store& store) const {
    return kernel_.buffers[static_cast<size_t>(store.access.buffer)];
  }

  Value* address(const Access& access, ScalarType dtype, Value* elements) {
    llvm::Type* type = prims_.memory_type(dtype);
    Value* base = buffers_[static_cast<size_t>(access.buffer)];
    if (access.offset != 0) base = b_.CreateConstGEP1_64(type, base, static_cast<uint64_t>(access.offset));
    return elements == nullptr ? base : b_.CreateGEP(type, base, elements);
  }

  template <typename Operand>
  Value* compute(size_t i, int lanes, Operand&& operand, Value* base) {
    const KernelOp& op = kernel_.ops[i];
    switch (op.prim) {
      case Prim::constant:
        return prims_.number(op.number, op.dtype, lanes);
      case Prim::load: {
        llvm::Type* type = prims_.memory_type(op.dtype);
        return prims_.after_load(b_.CreateLoad(type, address(op.access, op.dtype, base)), op.dtype);
      }
      case Prim::index: {
        Value* value = i64(op.access.offset);
        return base == nullptr ? value : b_.CreateAdd(base, value);
      }
      case Prim::copy:
      case Prim::reshape:
        return operand(op.operands[0]);
      case Prim::cast: {
        const ScalarType from = kernel_.ops[static_cast<size_t>(op.operands[0])].dtype;
        return prims_.cast(operand(op.operands[0]), from, op.dtype);
      }
      default:
        break;
    }
    llvm::SmallVector<Value*, 3> values;
    for (int32_t k : op.operands) values.push_back(operand(k));
    const ScalarType dtype = kernel_.ops[static_cast<size_t>(op.operands.back())].dtype;
    return prims_.apply(op.prim, dtype, values);
  }

  Value* numbers_of_lanes(int64_t stride) {
    llvm::SmallVector<llvm::Constant*, 16> numbers;
    for (int k = 0; k < lanes_; ++k) numbers.push_back(b_.getInt64(static_cast<uint64_t>(k * stride)));
    return llvm::ConstantVector::get(numbers);
  }

  // A vector whose lanes are `stride` elements apart from `pointer` on; `mask`: null for all lanes.
  Value* load_lanes(Value* pointer, ScalarType dtype, int64_t stride, Value* mask) {
    llvm::Type* scalar = prims_.memory_type(dtype);
    auto* type = llvm::FixedVectorType::get(scalar, static_cast<unsigned>(lanes_));
    const llvm::Align align(c10::elementSize(dtype));
    if (stride == 0) {
      return b_.CreateVectorSplat(static_cast<unsigned>(lanes_),
                                  b_.CreateAlignedLoad(scalar, pointer, align));
    }
    auto* none = llvm::Constant::getNullValue(type);
    if (stride == 1) {
      if (mask == nullptr) return b_.CreateAlignedLoad(type, pointer, align);
      return b_.CreateMaskedLoad(type, pointer, align, mask, none);
    }
    if (mask != nullptr) {
      Value* pointers = b_.CreateGEP(scalar, pointer, numbers_of_lanes(stride));
      return b_.CreateMaskedGather(type, pointers, align, mask, none);
    }
    // One by one, the distances being known: gathering takes several times as long on some machines.
    Value* result = llvm::PoisonValue::get(type);
    for (int k = 0; k < lanes_; ++k) {
      Value* one = b_.CreateAlignedLoad(scalar, lane_address(scalar, pointer, k * stride), align);
      result = b_.CreateInsertElement(result, one, static_cast<uint64_t>(k));
    }
    return result;
  }

  void store_lanes(Value* value, Value* pointer, ScalarType dtype, int64_t stride, Value* mask) {
    const llvm::Align align(c10::elementSize(dtype));
    if (stride == 1) {
      if (mask == nullptr) {
        b_.CreateAlignedStore(value, pointer, align);
      } else {
        b_.CreateMaskedStore(value, pointer, align, mask);
      }
      return;
    }
    llvm::Type* scalar = prims_.memory_type(dtype);
    if (mask != nullptr) {
      b_.CreateMaskedScatter(value, b_.CreateGEP(scalar, pointer, numbers_of_lanes(stride)), align, mask);
      return;
    }
    for (int k = 0; k < lanes_; ++k) {
      Value* one = b_.CreateExtractElement(value, static_cast<uint64_t>(k));
      b_.CreateAlignedStore(one, lane_address(scalar, pointer, k * stride), align);
    }
  }

  Value* lane_address(llvm::Type* scalar, Value* pointer, int64_t elements) {
    return elements == 0 ? pointer : b_.CreateConstGEP1_64(scalar, pointer, static_cast<uint64_t>(elements));
  }

  llvm::Module& module_;
  const Kernel& kernel_;
  const PassPlan plan_;
  llvm::IRBuilder<> b_;
  PrimEmitter prims_;
  int lanes_ = 16;
  llvm::Function* function_ = nullptr;
  BasicBlock* entry_ = nullptr;
  std::vector<Value*> buffers_;
  std::vector<Value*> row_position_;
};

// Kernels that Kernel::by_columns() is true of.
void emit_by_columns(llvm::Module& module, const Kernel& kernel, const std::string& name,
                     const EmitTarget& target);

}  // namespace flashpoint::native
