#include "driver/frame_reader.h"

#include "eval/frame_state.h"

namespace flashpoint {

namespace {

constexpr uint32_t kMaxFrames = 1000;

class FrameReader {
 public:
  FrameReader(store::Reader& in, const FrameSources& sources) : in_(in), s_(sources) {}

  std::unique_ptr<Suspension> read() {
    auto plan = std::make_unique<Suspension>();
    plan->common = in_.number<int32_t>();
    const auto count = in_.number<uint32_t>();
    const auto levels = s_.running == nullptr ? int32_t{0} : static_cast<int32_t>(s_.running->size());
    if (!in_.ok() || count == 0 || count > kMaxFrames || count > in_.left()) return nullptr;
    if (levels == 0 ? plan->common != -1 : plan->common < 0 || plan->common >= levels) return nullptr;
    plan->frames.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
      const bool patched = i == 0 && plan->common >= 0;
      PyCodeObject* code = patched ? (*s_.running)[static_cast<size_t>(plan->common)].code : nullptr;
      if (!read_frame(plan->frames[i], code, i == 0)) return nullptr;
    }
    if (!s_.recipes.read_value(plan->handled, true)) return nullptr;
    const bool known =
        plan->handled.kind == RecipeValue::Kind::kKeep || plan->handled.kind == RecipeValue::Kind::kNull;
    return known ? std::move(plan) : nullptr;
  }

 private:
  // code: of the running frame that is patched; null for one that is made.
  bool read_frame(FramePlan& frame, PyCodeObject* code, bool outermost) {
    frame.position = in_.number<int32_t>();
    const auto link = in_.number<uint8_t>();
    const auto slots = in_.number<uint32_t>();
    if (!in_.ok() || slots > in_.left() || link > static_cast<uint8_t>(FrameLink::kInit)) return false;
    frame.link = static_cast<FrameLink>(link);
    if (!s_.recipes.read_value(frame.function) || !s_.recipes.read_value(frame.self)) return false;
    const bool made = code == nullptr;
    if (made) {
      code = code_of(frame.function);
      if (code == nullptr || (!outermost && frame.link == FrameLink::kOpaque)) return false;
    }
    if ((frame.link == FrameLink::kInit) == (frame.self.kind == RecipeValue::Kind::kNull) && made)
      return false;
    const auto locals = static_cast<uint32_t>(code->co_nlocalsplus);
    if (!can_make_frame(code) || !is_instruction(code, frame.position) || slots < locals ||
        slots > locals + static_cast<uint32_t>(code->co_stacksize))
      return false;
    frame.slots.resize(slots);
    for (uint32_t i = 0; i < slots; ++i) {
      RecipeValue& slot = frame.slots[i];
      if (!s_.recipes.read_value(slot, i < locals)) return false;
      if (i < locals && !fits_local(slot, code, i, made)) return false;
    }
    return true;
  }

  PyCodeObject* code_of(const RecipeValue& function) const {
    if (function.kind == RecipeValue::Kind::kMade) {
      const MadeObject& made = s_.recipes.made[static_cast<size_t>(function.index)];
      return made.kind == MadeObject::Kind::kFunction
                 ? reinterpret_cast<PyCodeObject*>(made.items[0].constant.get())
                 : nullptr;
    }
    if (function.kind != RecipeValue::Kind::kNode || !s_.knows_code(function.index)) return nullptr;
    PyObject* found = s_.nodes[static_cast<size_t>(function.index)];
    return PyFunction_Check(found) ? reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(found)) : nullptr;
  }

  // Instructions take a cell for one. A running frame's dead slot stays what it is.
  bool fits_local(const RecipeValue& slot, PyCodeObject* code, uint32_t i, bool made) const {
    if (!holds_cell(code, i)) return true;
    switch (slot.kind) {
      case RecipeValue::Kind::kKeep:
        return !made;
      case RecipeValue::Kind::kNode:
        return PyCell_Check(s_.nodes[static_cast<size_t>(slot.index)]) && s_.is_fixed(slot.index);
      case RecipeValue::Kind::kMade:
        return s_.recipes.made[static_cast<size_t>(slot.index)].kind == MadeObject::Kind::kCell;
      default:
        return false;
    }
  }

  store::Reader& in_;
  const FrameSources& s_;
};

}  // namespace

std::unique_ptr<Suspension> read_frames(store::Reader& in, const FrameSources& sources) {
  return FrameReader(in, sources).read();
}

}  // namespace flashpoint
