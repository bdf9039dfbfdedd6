// The tables of what C functions, C types and attributes mean to a recording.
//
// Rows live in the .def files beside this header; they are resolved by name once, at the first recording,
// from modules that are already imported, and looked up by identity from then on. A function is known by
// its PyMethodDef (one for the bound, the unbound and the descriptor form), a slot wrapper by its slot
// record, a type by itself. What has no row ends the recording when it is called.
//
// Lifetime: one instance per process, never destroyed (it holds only static objects and module functions).
// GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/flat_map.h"
#include "record/observer.h"

namespace flashpoint {

class Recorder;

// What a call means; see the handlers in record/call.cpp. Names are used in functions.def.
enum class Rule : uint8_t {
  kNone,      // no row
  kPure,      // result depends on deep-read arguments only
  kConstant,  // depends on nothing but its arguments' types and identities
  kIterate,   // reads its iterable arguments (one level); keys and predicates come back through the hook
  kState,     // reads global state that every entry guards
  kRecursionLimit,
  kSetState,  // changes global state that is compared at the end
  kTorch,     // tensor operation: the dispatcher is the witness
  kDeny,      // reads what replay cannot see
  kMutate,    // changes its receiver: fresh ones only
  kLen,
  kGetAttr,
  kHasAttr,
  kSetAttr,
  kDelAttr,
  kIter,
  kNext,
  kIsInstance,
  kTypeOf,
  kSuper,
  kId,
  kHash,
  kFormat,
  kStrFormat,
  kSum,
  kVars,
  kSayAgain,
  kImport,
  kObjectNew,
  kObjectInit,
  kGetAttribute,
  kSetAttribute,
  kDelAttribute,
  kReduce,
  kDictGet,
  kDictPop,
  kDictSet,
  kDictDel,
  kDictUpdate,
  kDictView,
  kDictCopy,
  kDictSetDefault,
  kDictContains,
  kContents,  // changes list, dict or set contents: rewritten as a whole
  kAppend,
  kListRead,
  kSetAdd,
  kGetItem,
  kContains,
  kCompareSlot,
  kCallSlot,
  kContextGet,
  kContextSet,
  kContextReset,
  kAbcCheck,
  kTorchTensor,
  kNewTensor,
  kAsTensor,
  kTensorValue,     // a value of a tensor as a Python number
  kTensorValues,    // all of them
  kFunctionApply,   // autograd.Function
  kEngine,          // runs the autograd engine
  kBelow,           // works on what only recordings below autograd follow
  kRequiresGrad,    // changes the history of its receiver
  kRetainGrad,      // has the engine keep the gradient of its receiver, a tensor made in the call
  kLegacyTensor,    // torch.FloatTensor(...), torch.Tensor(...): of sizes or of data
  kLegacyNew,       // Tensor.new: the same
  kLegacyVariable,  // Variable(tensor): detached
  kTensorQuery,     // metadata of tensors as Python numbers
  kStorageOffset,
  kTensorStore,
  kDescriptorGet,
  kBuildClass,
  kStateManager,  // makes an object that changes state while a with statement runs
  kHasTorchFunction,
  kIterSlot,
  kReadSelf,
  kCompare,    // operator.eq and its like: as the comparison
  kIs,         // operator.is_ and is_not
  kTruth,      // operator.truth and not_
  kFresh,      // a method that runs or changes only its receiver, which must have been made in the call
  kJoin,       // str.join
  kMemoLock,   // the lock of functools.cached_property
  kMemoIdent,  // thread identity, where a library keeps out of recursion with it
  kCountElements,
  kExcInfo,    // sys.exc_info
  kGenerator,  // runs a generator on
};

enum class TensorAttribute : uint8_t { kUnknown, kMetadata, kOperation, kGrad, kData, kGradFn };

struct RuleRow {
  Rule rule = Rule::kNone;
  const char* name = "";
};

// What a function's own attributes say against recording it: torch.compiler.disable and flashpoint.disable
// leave a mark. Borrowed: a reason, True, or null.
PyObject* disabling_mark(PyObject* function);

class Rules {
 public:
  RuleRow function(PyMethodDef* def) const;
  RuleRow slot(PyWrapperDescrObject* descriptor) const;
  RuleRow type(PyTypeObject* type) const;
  // torch.compiler.is_compiling() and its like: the answer while recording (borrowed), or null.
  PyObject* tracing_query(PyObject* code) const;
  PyObject* tracing_query_c(PyMethodDef* def) const;
  // Optimizers, told that tracing is on, compute with tensors what they compute with numbers otherwise: other
  // bits come out. They are told the truth.
  bool computes_otherwise(const EvalFrame* frame) const;
  bool is_hash_by_address(PyObject* code) const { return code == tensor_hash_; }
  bool is_graph_break(PyObject* code) const { return graph_breaks_.contains(code); }

  // Functions that run the autograd engine.
  bool needs_base(PyObject* code) const { return base_code_.contains(code); }
  // What an optimizer's method stands for that torch keeps from TorchDynamo; null for other functions.
  PyObject* undisabled(PyObject* function) const;
  bool may_break_graph(PyObject* code) const { return optimizer_code_.contains(code); }
  // Control-flow operators of torch that run the side which a tensor's value chooses.
  bool chooses_branch(PyObject* code) const { return choosing_.contains(code); }
  bool is_import_module(PyObject* code) const;
  void load_module(Recorder& r, EvalFrame& frame) const;
  // torch.ops and what it holds bind an operator when it is first asked for.
  void bind_operator(Recorder& r, PyObject* holder, PyObject* name) const;
  void bind_operator(PyObject* holder, PyObject* name) const;
  bool holds_operators(PyTypeObject* type) const { return operator_holders_.contains(type); }
  bool is_thread_local(PyTypeObject* type) const { return type == thread_local_; }
  bool is_unwatched(PyObject* code) const { return unwatched_.contains(code); }
  // module_call.cpp: the two functions between nn.Module.__call__ and forward().
  bool is_module_wrapper(PyObject* code) const { return code == module_wrapper_; }
  bool is_module_call(PyObject* code) const { return code == module_call_; }
  void settle_module_call(Recorder& recorder, EvalFrame& frame) const;
  void enter_module_call(Recorder& recorder, EvalFrame& frame) const;
  static void keep_hooks_apart(Recorder& recorder);
  bool is_module_getattr(PyObject* code) const { return code == module_getattr_; }
  bool is_pure_python(PyObject* code) const { return pure_python_.contains(code); }
  bool calls_operators(PyObject* code) const { return operator_callers_.contains(code); }

  bool is_singleton_type(PyTypeObject* type) const { return singleton_types_.contains(type); }
  bool is_value_type(PyTypeObject* type) const { return value_types_.contains(type); }
  bool is_known_descriptor(PyTypeObject* type) const { return known_descriptors_.contains(type); }
  bool is_deque(PyObject* object) const { return PyObject_TypeCheck(object, deque_); }
  PyObject* deque_type() const { return reinterpret_cast<PyObject*>(deque_); }
  bool is_exact_deque(PyObject* object) const { return Py_IS_TYPE(object, deque_); }
  PyObject* defaultdict_type() const { return reinterpret_cast<PyObject*>(defaultdict_); }
  bool is_exact_defaultdict(PyObject* object) const { return Py_IS_TYPE(object, defaultdict_); }
  bool is_weakref(PyObject* object) const { return PyWeakref_CheckRefExact(object); }
  // operator.itemgetter, attrgetter and methodcaller.
  bool is_getter(PyObject* object) const {
    return Py_IS_TYPE(object, itemgetter_) || Py_IS_TYPE(object, attrgetter_) ||
           Py_IS_TYPE(object, methodcaller_);
  }
  // Types whose objects hold state that nothing here can guard.
  bool is_opaque(PyTypeObject* type) const { return opaque_types_.contains(type); }
  bool is_size(PyObject* object) const { return Py_IS_TYPE(object, size_); }
  bool is_tuplegetter(PyObject* object) const { return Py_IS_TYPE(object, tuplegetter_); }
  bool is_script_object(PyObject* object) const { return Py_IS_TYPE(object, script_object_); }
  bool is_function_record(PyObject* object) const { return Py_IS_TYPE(object, function_record_); }
  bool is_partial(PyObject* object) const { return Py_IS_TYPE(object, partial_); }
  bool is_lru_cache(PyObject* object) const { return Py_IS_TYPE(object, lru_cache_); }
  bool is_defaultdict(PyObject* object) const { return PyObject_TypeCheck(object, defaultdict_); }
  bool is_enum_member(PyObject* object) const;
  // Library functions that use id() and `is` only to find again what they have seen before.
  bool uses_identity_as_memo(PyObject* code) const;
  bool attribute_is_constant(PyTypeObject* type, PyObject* name) const;
  TensorAttribute tensor_attribute(PyObject* name) const;
  bool contains_list(PyObject* index) const;
  bool holds_tensor(PyObject* data) const;

  // Handlers that need a Recorder's privates.
  bool read_function_attribute(Recorder& r, PyObject* function, PyObject* name) const;
  void read_operator_slots(Recorder& r, PyObject* object) const;
  void store_subscript(Recorder& r, PyObject* container, PyObject* key, PyObject* value) const;
  // hooks.cpp: registers or removes a hook of a tensor that the recording made; false where it does neither.
  bool call_hooks(Recorder& r, PyObject* function, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                  Pending& pending) const;
  // class_statement.cpp
  void build_class(Recorder& r, PyObject* const* argv, Py_ssize_t n, PyObject* kwnames,
                   Pending& pending) const;
  // The read of a name, or (null) a store, in a class body. False: it is no class body.
  bool read_class_name(Recorder& r, EvalFrame& frame, PyObject* name) const;
  PyObject* run_unwatched(Recorder& r, EvalFrame& frame) const;  // null when it raised
  // module_attribute.cpp: what nn.Module.__getattr__ finds, null where its code is to run.
  PyObject* get_module_attr(Recorder& r, EvalFrame& frame) const;
  // torch_handlers.cpp
  void read_tensor_index(Recorder& r, PyObject* tensor, PyObject* key) const;
  void read_stored_value(Recorder& r, PyObject* tensor, PyObject* key, PyObject* value) const;
  void query_tensor(Recorder& r, const char* name, PyObject* const* argv, Py_ssize_t count) const;
  void read_values(Recorder& r, const char* name, PyObject* tensor, bool all) const;
  void read_storage_offset(Recorder& r, PyObject* tensor) const;
  bool answers_torch_functions(Recorder& r, PyObject* object) const;
  void call_pure_python(Recorder& r, PyObject* function, PyObject* const* args, Py_ssize_t n,
                        PyObject* kwnames, Pending& pending) const;
  void make_legacy_tensor(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t n,
                          Pending& pending) const;
  void make_literal(Recorder& r, PyObject* const* argv, Py_ssize_t count, Py_ssize_t first,
                    Pending& pending) const;
  void call_torch_rule(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t n, PyObject* kwnames,
                       Pending& pending) const;
  void import(Recorder& r, EvalFrame& frame, const Operands& operands) const;
  void check_callback(Recorder& r, PyObject* callable) const;
  void read_partial(Recorder& r, PyObject* partial) const;
  // rules/iteration.cpp: C functions that walk iterables, perhaps calling something for each element
  void iterate(Recorder& r, EvalFrame& frame, RuleRow row, PyObject* const* argv, Py_ssize_t n,
               PyObject* kwnames) const;
  void call_getter(Recorder& r, PyObject* getter, PyObject* const* args, Py_ssize_t n) const;
  void get_dotted(Recorder& r, PyObject* object, PyObject* path) const;
  void call_method_of(Recorder& r, PyObject* object, PyObject* wanted) const;
  void say_again(Recorder& r, const char* name, PyObject* const* argv, Py_ssize_t count) const;
  void run_generator(Recorder& r, EvalFrame& frame, PyObject* generator, bool is_result) const;
  void read_behind(Recorder& r, PyObject* iterator, int depth) const;
  void read_elements_of(Recorder& r, PyObject* iterable, std::vector<PyObject*>& elements) const;
  // rules/text.cpp
  void format(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t count) const;
  // rules/containers.cpp
  void read_list_method(Recorder& r, PyObject* const* argv, Py_ssize_t count) const;
  void change_contents(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t count) const;
  void hash(Recorder& r, PyObject* object) const;
  // The call of a C function: what it reads and changes. argv[0] is the receiver of a method.
  void call(Recorder& r, EvalFrame& frame, RuleRow row, PyObject* const* argv, Py_ssize_t n,
            PyObject* kwnames, Pending& pending) const;
  void after_call(Recorder& r, const Operands& operands, const Pending& pending, PyObject* result) const;

 private:
  void keep_environment_local(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t count) const;
  friend const Rules& refresh_rules();
  Rules() = default;
  void resolve_all();
  bool find_constant_attribute(PyTypeObject* type, PyObject* name) const;
  void add_function(PyObject* callable, Rule rule, const char* name);
  void add_row(const char* module, const char* path, Rule rule);
  void add_named_tuples(const char* module);
  void add_namespace(const char* module, const char* path, Rule rule);
  void deny(const char* module, const char* path);
  void add_nested_code(PyObject* code, FlatSet<PyObject*>& set);

  FlatMap<PyMethodDef*, RuleRow, PointerHash> functions_;
  FlatMap<size_t, RuleRow, BitsHash> slots_;
  FlatMap<PyTypeObject*, RuleRow, PointerHash> types_;
  FlatMap<PyObject*, PyObject*, PointerHash> tracing_queries_;
  FlatMap<PyMethodDef*, PyObject*, PointerHash> tracing_queries_c_;
  FlatSet<PyObject*> graph_breaks_, base_code_, optimizer_code_, disabling_code_;
  FlatSet<PyTypeObject*> singleton_types_, value_types_, known_descriptors_;
  FlatSet<PyObject*> memo_code_;
  FlatSet<PyObject*> operator_callers_;
  FlatSet<PyTypeObject*> opaque_types_, operator_holders_;
  PyTypeObject* itemgetter_ = nullptr;
  PyTypeObject* attrgetter_ = nullptr;
  PyTypeObject* methodcaller_ = nullptr;
  PyObject* cached_property_code_ = nullptr;
  FlatSet<PyObject*> pure_python_, unwatched_, choosing_;
  PyObject* import_module_ = nullptr;  // the code of importlib's function
  PyTypeObject* size_ = nullptr;
  PyTypeObject* tuplegetter_ = nullptr;
  PyTypeObject* thread_local_ = nullptr;
  PyTypeObject* deque_ = nullptr;
  PyTypeObject* defaultdict_ = nullptr;
  PyTypeObject* pybind_meta_ = nullptr;
  PyObject* pybind_entries_ = nullptr;
  PyTypeObject* script_object_ = nullptr;
  PyTypeObject* function_record_ = nullptr;  // what pybind11 binds its functions to
  PyTypeObject* partial_ = nullptr;
  PyTypeObject* lru_cache_ = nullptr;
  PyObject* enum_meta_ = nullptr;
  PyObject* tensor_hash_ = nullptr;
  PyObject* module_getattr_ = nullptr;
  PyObject* module_wrapper_ = nullptr;
  PyObject* module_call_ = nullptr;  // null where it is not written as it is known
  int module_call_at_ = 0;           // the instruction that it stands at before it calls forward()
  std::vector<int> module_call_cells_;
  void learn_module_call(PyCodeObject* code);
  bool read_plain_type(Recorder& recorder, PyTypeObject* type) const;
  bool read_plain_call(Recorder& recorder, PyObject* self) const;
  bool read_module_globals(Recorder& recorder, PyObject* globals) const;
};

const Rules& refresh_rules();
extern const Rules* current_rules;  // null: to be refreshed
inline const Rules& rules() { return current_rules != nullptr ? *current_rules : refresh_rules(); }

// With a torch-function mode on, a call of a torch function, or the read of a tensor's attribute, is a call
// of the mode's Python code, which is recorded like any other.
bool function_mode_answers();

}  // namespace flashpoint
