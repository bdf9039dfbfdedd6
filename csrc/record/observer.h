// What the evaluator tells a recording, and nothing else: the interface between eval/ and record/.
//
// The evaluator performs every instruction with CPython's own operations; an Observer only watches.
// Around an instruction that reads, writes or calls, the evaluator sends `before` (operands still alive
// on the stack, nothing executed) and, once it has run, `after` (operands still alive, result not yet
// pushed; `result` is null when the instruction raised, and then the Python error is set). Frames that
// run in between send their own pairs; the Pending value ties a pair together, so it lives on the C stack.
// `after` goes only to the observer that saw `before`, unless it set Pending::done, and not once it has
// ended its recording.
// Stores and other events that name no result give a non-null one (None or an operand) on success.
//
// Invariants
//  - An observer never changes what the program does. The one exception is Call: it may answer the call
//    itself (Pending::answer), which is how the tracing-state queries work.
//  - An observer never leaves a Python error set and never clears one that was set.
//  - An observer may end its own recording at any event; it then clears ThreadContext::observer. The
//    evaluator therefore loads ThreadContext::observer anew for each event, `after` included.
//
// Scalar shadow: beside the localsplus array of each evaluated frame runs an array of Tags, one per slot
// (locals, cells, stack), 0 = nothing known. The evaluator moves tags along with values wherever an
// instruction only moves a value; every other push writes the tag `after` returned (0 without observer).
// UNPACK_SEQUENCE and UNPACK_EX push several: a tag t that is not 0 gives element i (in unpacking order)
// the tag t + i; BUILD_TUPLE, BUILD_LIST and BUILD_MAP push what `built` says. A tagged value that goes into
// anything else, or becomes a key, shows as kBuild, and so does a tuple or dict. When another observer takes
// over while a frame runs, the frame's tags are cleared, unless that observer has written them
// (EvalFrame::tags_of).
//
// Threads and GIL: an observer belongs to one thread and is called with the GIL held.
#pragma once

#include <Python.h>

#include <cstdint>

struct _PyInterpreterFrame;

namespace flashpoint {

using Tag = uint32_t;

enum class FrameLink : uint8_t {
  kOpaque,  // C code lies between that does something with the result
  kResult,  // the result is the instruction's result
  kInit,    // __init__: the instruction's result is the object
  // A generator's frame, which the instruction runs on; done again, it would run on once more.
  kNext,      // FOR_ITER
  kDelegate,  // SEND
  kSend,      // a call of next(), send() or throw(): what it yields is the result, its end a StopIteration
};

// A frame that is being evaluated. Owned by the evaluator's C frame; `caller` is the next evaluated frame
// outwards on this thread (C code may lie between).
struct EvalFrame {
  _PyInterpreterFrame* frame = nullptr;
  EvalFrame* caller = nullptr;
  Tag* tags = nullptr;  // one per localsplus slot, stack included; null while nothing is recorded
  PyObject** stack_pointer = nullptr;  // valid during an event: one past the top of the value stack
  uint64_t serial = 0;                 // no two frames of a thread have the same
  // How the caller's instruction ends once this frame has returned; written by whoever records or restores.
  FrameLink link = FrameLink::kOpaque;
  PyObject* link_self = nullptr;  // kInit: the object under construction, kept alive by its constructor
  bool operands_popped = false;   // restored in the middle of a call: its operands are off the stack
  uint64_t tags_of = 0;           // serial of the observer whose tags these are
  // A callee has returned a tagged value: the observer's `returned` gives the tag of what is pushed next.
  bool tag_returned = false;
};

enum class Event : uint8_t {
  kGlobal,       // a = globals or builtins dict it was found in, name;         result = value
  kName,         // LOAD_NAME: a = null, name
  kStoreGlobal,  // a = globals dict, name, b = value or null (delete)
  kStoreName,    // STORE_NAME/DELETE_NAME
  kCell,         // a = cell, name in a class body (its namespace comes first);  result = content
  kStoreCell,    // a = cell, b = value or null; also where the local of slot `detail - 1` becomes a cell
  kAttr,         // LOAD_ATTR: a = object, name;                                 result = value
  kMethod,       // LOAD_METHOD: a = object, name;    result = value, or the unbound method that was found
  kSpecial,      // with statement: a = object, name = __enter__/__exit__;       result = bound method
  kStoreAttr,    // a = object, name, b = value or null (delete)
  kSubscr,       // a = container, b = key
  kStoreSubscr,  // a = container, b = key, c = value or null (delete)
  kBinary,       // detail = NB_* of BINARY_OP, a, b
  kUnary,        // detail = opcode, a
  kTruth,        // a; result = Py_True/Py_False (borrowed); not sent when a is exactly True or False
  kCompare,      // detail = Py_LT.., a, b
  kContains,     // a = container, b = item; detail = 1: not in; result = Py_True/Py_False before inversion,
                 // the tag is the pushed value's
  kIs,           // a, b; detail = 1: is not; result and tag as for kContains; also jumps on (not) None
  kIter,         // a = iterable; result = iterator
  kNext,         // a = iterator; result = value, null at the end; b = sent value (yield from) or null
  // a = what is read to its end, b = what it is added to or null:
  // an iterable: UNPACK_* (detail 0, 1: with a star), LIST_EXTEND, SET_UPDATE, LIST_TO_TUPLE, f(*a) (detail
  // 2)
  kUnpack,
  kUnpackMapping,  // a mapping: DICT_UPDATE, DICT_MERGE, f(**a)
  kFormat,         // a = value, b = format spec or null, detail = conversion flag
  kCall,           // a = callable, args/nargs/kwnames as in vectorcall (CALL_FUNCTION_EX: unpacked alike);
                   // detail = 1: __exit__ because of an exception
  kImport,         // IMPORT_NAME: name;     result = module
  kImportFrom,     // IMPORT_FROM: a = module, name
  kClosure,        // COPY_FREE_VARS: a = function, b = its closure tuple
  kMatch,  // MATCH_* and GET_LEN: detail = opcode, a = subject, b = keys or class, c = MATCH_CLASS's names
  kYield,  // a = yielded value
  kUnsupported,  // detail = opcode: the frame goes on in CPython from here (`before` only; not sent for the
                 // creation of a generator). RESUME: the frame never was ours (tracing, end of the C stack)
  kAppend,       // a = list or set of a comprehension, b = item; or a = dict, b = key, c = value
  kJoin,         // BUILD_STRING: args/nargs
  kBuild,        // args/nargs go into a set, slice or function, or are keys; sent when one of them
                 // has a tag, or is a tuple or dict
  kRaise,        // a = an exception or class that is about to be raised, null for what is being handled
};

// The operands of one event. All borrowed from the frame; alive from `before` to `after`.
struct Operands {
  Event event;
  int detail = 0;
  PyObject* a = nullptr;
  PyObject* b = nullptr;
  PyObject* c = nullptr;
  PyObject* name = nullptr;
  PyObject* const* args = nullptr;
  Py_ssize_t nargs = 0;  // positional ones
  PyObject* kwnames = nullptr;
};

struct Pending {
  PyObject* answer = nullptr;  // kCall only: a new reference that replaces the call's result
  // kCall only: called in place of the callable. Borrowed; the callable keeps it alive.
  PyObject* instead = nullptr;
  uint32_t word = 0;     // the observer's own
  bool done = false;     // the observer wants no `after`
  bool raise = false;    // a Python error is set: the instruction raises it instead of running
  void* data = nullptr;  // the observer's own
};

class Observer {
 public:
  virtual ~Observer() = default;
  const uint64_t serial = next_serial();  // no two observers have the same
  virtual Pending before(EvalFrame& frame, const Operands& operands) = 0;
  virtual Tag after(EvalFrame& frame, const Operands& operands, const Pending& pending, PyObject* result) = 0;
  // A frame starts (its arguments are in place, no instruction has run; a generator's resume included, also
  // one that raises at once because of throw()). No Python error is set.
  // A non-null answer (new reference) becomes the frame's return value and its code does not run. Else it may
  // have moved the frame on, to the start of a statement, by doing what the instructions before do.
  virtual PyObject* enter_frame(EvalFrame& frame) = 0;
  // A frame ends: result is its return or yielded value, null when it raises.
  virtual void leave_frame(EvalFrame& frame, PyObject* result) = 0;
  // The tag of `value`, which the frame is about to push: a callee returned it (EvalFrame::tag_returned).
  virtual Tag returned(EvalFrame&, PyObject*) { return 0; }
  // A tuple, list or dict was made of `count` slots, of which some have a tag. Of a dict they are keys and
  // values in turn, or `-count` values and the tuple of the keys behind them. Gives its own tag.
  virtual Tag built(EvalFrame&, PyObject* /*made*/, PyObject* const* /*slots*/, const Tag* /*tags*/,
                    int /*count*/) {
    return 0;
  }

 private:
  static uint64_t next_serial() {
    static uint64_t last = 0;  // GIL
    return ++last;
  }
};

}  // namespace flashpoint
