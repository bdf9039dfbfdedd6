// How replay makes the objects a call returns or stores: recipes, and the effects that use them.
//
// A recipe describes a value by what it is at the next call: a constant, an object reached by a guard node,
// an output of the graph, or an object to be made. Made objects are described once each, so aliasing and
// cycles are kept. What there is no recipe for (reversed dicts, iterators that others see, objects with C
// state) makes the recording unusable. Building runs no Python code of the program.
//
// Callers: driver/capture describes, driver/entry builds. GIL: required.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "guard/global_state.h"
#include "guard/guard_tree.h"
#include "py/exception_state.h"
#include "py/ref.h"
#include "record/recorder.h"

namespace flashpoint {

struct RecipeValue {
  // kSaved, kHandled: what the thread was handling when the call began (py/exception_state.h).
  enum class Kind : uint8_t { kNull, kConstant, kNode, kOutput, kMade, kKeep, kScalar, kSaved, kHandled };
  Kind kind = Kind::kNull;
  int32_t index = 0;  // node, output, made object or step of the scalar program
  Ref constant;
};

struct MadeObject {
  enum class Kind : uint8_t {
    kList,
    kTuple,
    kStruct,
    kDict,
    kDefaultDict,  // items: the factory, then keys and values in turn
    kSet,
    kFrozenSet,
    kSlice,
    kMethod,
    kDeque,
    kInstance,
    kCell,           // items: its contents
    kFunction,       // made from a code object; items as in recipe_builder.cpp
    kBuiltinMethod,  // items: the receiver
    kReduced,  // items: callable, arguments, state: what __reduce__ said; type: of an iterator over a set
    kTensor,   // an output that is more than that; items: the output, its gradient; type: Parameter
    kDictIterator,     // type: the iterator's; items: the dict, how many elements were taken
    kException,        // items: args, context, cause, traceback, whether the context is suppressed, C fields
    kInferenceRegion,  // items: the mode; state: in which it was entered
    // A generator: its slots, of one that is suspended or has not started. code: of one that has finished,
    // whose function is gone.
    kGenerator,
    kTraceback,  // items: the next one, code, globals, instruction, line, level of a live frame or -1
  };
  Kind kind;
  Ref type;                        // kInstance, kStruct, kTuple subclasses; kDeque: its length limit
  PyTypeObject* base = nullptr;    // kInstance: the builtin type underneath (static)
  std::vector<RecipeValue> items;  // list, tuple, set items; dict keys and values in turn
  std::vector<std::pair<Ref, RecipeValue>> attributes;  // instance dict
  std::vector<std::pair<Ref, RecipeValue>> slots;       // member descriptors
  PyMethodDef* method = nullptr;                        // kBuiltinMethod (static)
  std::shared_ptr<const GlobalState> state = nullptr;   // kInferenceRegion
};

// A frame as an entry that ends at a break leaves it.
struct FramePlan {
  int32_t position = 0;  // where it goes on; for all but the innermost frame, the call in progress
  FrameLink link = FrameLink::kOpaque;
  RecipeValue function;
  RecipeValue self;                // kInit
  std::vector<RecipeValue> slots;  // kNull: empty, kKeep: dead, left as it is
};
struct Suspension {
  int32_t common = -1;  // the level of the first plan is that of a running frame, to be patched; -1: none is
  std::vector<FramePlan> frames;                            // outermost first
  RecipeValue handled = {RecipeValue::Kind::kKeep, 0, {}};  // what is being handled; kNull: nothing
};
// Where a generator that runs is to be left.
struct BuiltGenerator {
  Ref generator;
  std::vector<Ref> slots;
  int32_t position = 0;
  bool finished = false;
};
struct BuiltFrame {
  Ref function, self;
  std::vector<Ref> slots;
};
// What a suspension's recipes make.
struct BuiltStack {
  std::vector<BuiltFrame> frames;  // empty: a Python error is set
  Ref handled;
  std::vector<std::pair<Ref, int32_t>> tracebacks;  // and the level of the frame that each is to get
  std::vector<BuiltGenerator> generators;
};

struct PlannedEffect {
  EffectKind kind;
  NodeId owner;
  Ref key;
  std::vector<RecipeValue> items;
  bool moved = false;  // kDictItem: inserted anew, at the end of the dict's order
};

// Describes live objects at the end of a recording.
class RecipeWriter {
 public:
  explicit RecipeWriter(Recorder& recorder) : recorder_(recorder) {}

  // kNull and a non-empty failure() when there is no recipe.
  RecipeValue describe(PyObject* object);
  // The same for a value with a tag of the recorder's shadow.
  RecipeValue describe(PyObject* object, Tag tag);
  bool describe_effects(std::vector<PlannedEffect>& effects);
  const std::string& failure() const { return failure_; }
  std::vector<MadeObject> take() { return std::move(made_); }
  std::vector<SpentHistory> take_histories() { return std::move(histories_); }
  bool enters_inference = false;  // a recipe enters a region of inference mode
  // Frame objects of the running frames, outermost first, null where there is none: tracebacks name them.
  std::vector<PyObject*> running;

 private:
  RecipeValue describe_instance(PyObject* object);
  RecipeValue describe_function(PyObject* function);
  // recipe_exceptions.cpp
  RecipeValue describe_exception(PyObject* exception);
  RecipeValue describe_traceback(PyObject* traceback);
  RecipeValue describe_generator(PyObject* generator);
  bool describe_generator_end(PyObject* generator, PlannedEffect& effect);
  RecipeValue describe_made_by(PyObject* object, Ref function, PyObject* argument);
  RecipeValue describe_reduced(PyObject* iterator);
  RecipeValue describe_tensor(PyObject* tensor);
  RecipeValue describe_with_history(PyObject* tensor);
  RecipeValue describe_inference_region(PyObject* manager);
  RecipeValue fail(PyObject* object, const char* why);
  int32_t begin(PyObject* object, MadeObject::Kind kind);

  Recorder& recorder_;
  std::vector<MadeObject> made_;
  std::vector<SpentHistory> histories_;
  std::vector<Ref> kept_;
  std::unordered_map<PyObject*, int32_t> memo_;
  std::string failure_;
  int depth_ = 0;
};

// What one replay has at hand.
struct BuildContext {
  const std::vector<PyObject*>& nodes;  // guard node -> object (borrowed)
  const std::vector<Ref>& outputs;      // graph outputs as Python tensors
  const std::vector<MadeObject>& recipes;
  const std::vector<Ref>& scalars;  // results of the scalar program
  std::vector<Ref> made;            // filled as objects are built
  OuterHandling outer = {};
  BuiltStack* stack = nullptr;  // what is not built but left to whoever writes the frames
};

// A new reference, or null with a Python error set.
PyObject* build(BuildContext& context, const RecipeValue& value);
// The slot may be empty; false with a Python error set.
bool build_slot(BuildContext& context, const RecipeValue& value, Ref* slot);
PyObject* build_exception(BuildContext& context, const MadeObject& made, int32_t index);
PyObject* build_generator(BuildContext& context, const MadeObject& made, int32_t index);
bool commit_generator(BuildContext& context, const PlannedEffect& effect);
PyObject* build_traceback(BuildContext& context, const MadeObject& made);
// More memory than what Python code can see of it: a class made by C code without being a builtin one.
bool has_c_state(PyObject* object, PyTypeObject* base);
PyTypeObject* builtin_base(PyTypeObject* type);
// Sets and dicts ask their keys, which may be code of the program and may raise: they are built before the
// first effect. False with a Python error set.
bool build_hashed(BuildContext& context);
bool commit(BuildContext& context, const std::vector<PlannedEffect>& effects);

}  // namespace flashpoint
