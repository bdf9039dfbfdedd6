#include "py/internal.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "eval/errors.h"
#include "eval/liveness.h"
#include "eval/opcodes_tables.h"

namespace flashpoint {

namespace {

struct Instruction {
  int start;  // of its first prefix
  int at;     // of the instruction itself
  int next;   // behind its caches
  int opcode;
  int argument;
};

std::vector<Instruction> instructions_of(PyCodeObject* code) {
  std::vector<Instruction> all;
  const _Py_CODEUNIT* units = _PyCode_CODE(code);
  const int count = static_cast<int>(Py_SIZE(code));
  for (int i = 0; i < count;) {
    Instruction in{i, i, 0, 0, 0};
    for (;; ++i) {
      in.opcode = fp_opcode_deopt[_Py_OPCODE(units[i])];
      in.argument = (in.argument << 8) | _Py_OPARG(units[i]);
      if (in.opcode != EXTENDED_ARG || i + 1 >= count) break;
    }
    in.at = i;
    in.next = i = i + 1 + fp_opcode_caches[in.opcode];
    all.push_back(in);
  }
  return all;
}

// The unit a jump goes to, or -1.
int jump_target(const Instruction& in) {
  switch (in.opcode) {
    case JUMP_FORWARD:
    case POP_JUMP_FORWARD_IF_TRUE:
    case POP_JUMP_FORWARD_IF_FALSE:
    case POP_JUMP_FORWARD_IF_NONE:
    case POP_JUMP_FORWARD_IF_NOT_NONE:
    case JUMP_IF_TRUE_OR_POP:
    case JUMP_IF_FALSE_OR_POP:
    case FOR_ITER:
    case SEND:
      return in.next + in.argument;
    case JUMP_BACKWARD:
    case JUMP_BACKWARD_NO_INTERRUPT:
    case POP_JUMP_BACKWARD_IF_TRUE:
    case POP_JUMP_BACKWARD_IF_FALSE:
    case POP_JUMP_BACKWARD_IF_NONE:
    case POP_JUMP_BACKWARD_IF_NOT_NONE:
      return in.next - in.argument;
    default:
      return -1;
  }
}

bool falls_through(int opcode) {
  return opcode != RETURN_VALUE && opcode != RAISE_VARARGS && opcode != RERAISE && opcode != JUMP_FORWARD &&
         opcode != JUMP_BACKWARD && opcode != JUMP_BACKWARD_NO_INTERRUPT;
}

bool find_seer(PyCodeObject* code) {
  const auto names = [&](const char* wanted) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_names); ++i) {
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(code->co_names, i), wanted) == 0) return true;
    }
    return false;
  };
  for (const char* seer : {"locals", "eval", "exec", "vars", "dir", "_getframe", "currentframe"}) {
    if (names(seer)) return true;
  }
  // inspect.stack, where it is not torch.stack.
  return names("stack") && (names("inspect") || !names("torch"));
}

using Live = std::unordered_map<int, std::vector<bool>>;

Live compute(PyCodeObject* code) {
  const auto slots = static_cast<size_t>(code->co_nlocalsplus);
  std::vector<bool> always(slots);
  const char* kinds = PyBytes_AS_STRING(code->co_localspluskinds);
  const bool all = find_seer(code);
  for (size_t i = 0; i < slots; ++i) always[i] = all || (kinds[i] & (CO_FAST_CELL | CO_FAST_FREE)) != 0;
  for (size_t i = 0; i < slots; ++i) {
    // super() without arguments takes the first one out of the frame.
    PyObject* name = PyTuple_GET_ITEM(code->co_localsplusnames, static_cast<Py_ssize_t>(i));
    if ((kinds[i] & CO_FAST_FREE) != 0 && PyUnicode_CompareWithASCIIString(name, "__class__") == 0)
      always[0] = true;
  }
  const std::vector<Instruction> instructions = instructions_of(code);
  std::vector<int> index(static_cast<size_t>(Py_SIZE(code)) + 1, -1);  // unit -> instruction
  for (size_t i = 0; i < instructions.size(); ++i) {
    for (int unit = instructions[i].start; unit <= instructions[i].at; ++unit)
      index[unit] = static_cast<int>(i);
  }
  std::vector<std::vector<bool>> live(instructions.size(), always);
  const auto join = [&](std::vector<bool>& into, int unit) {
    if (unit < 0 || unit >= static_cast<int>(index.size()) || index[unit] < 0) return;
    const std::vector<bool>& from = live[static_cast<size_t>(index[unit])];
    for (size_t s = 0; s < slots; ++s) into[s] = into[s] || from[s];
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = instructions.size(); i-- > 0;) {
      const Instruction& in = instructions[i];
      std::vector<bool> now = always;
      if (falls_through(in.opcode)) join(now, in.next);
      join(now, jump_target(in));
      const auto slot = static_cast<size_t>(in.argument);
      if (in.opcode == STORE_FAST && !always[slot]) now[slot] = false;
      Handler handler;
      if (find_handler(code, in.at, &handler)) join(now, handler.target);
      if (in.opcode == LOAD_FAST || in.opcode == DELETE_FAST || in.opcode == MAKE_CELL ||
          in.opcode == LOAD_CLOSURE) {
        now[slot] = true;
      }
      if (now != live[i]) {
        live[i] = std::move(now);
        changed = true;
      }
    }
  }
  Live result;
  for (size_t i = 0; i < instructions.size(); ++i) {
    result[instructions[i].start] = live[i];
    result[instructions[i].at] = live[i];
  }
  return result;
}

}  // namespace

bool sees_all_locals(PyCodeObject* code) {
  static auto* known = new std::unordered_map<PyCodeObject*, bool>();  // code objects stay alive, as below
  const auto [it, added] = known->try_emplace(code, false);
  if (added) {
    Py_INCREF(code);
    it->second = find_seer(code);
  }
  return it->second;
}

const std::vector<bool>& live_locals(PyCodeObject* code, int position) {
  // Code objects asked about stay alive: there are as many as there are functions with breaks.
  static auto* known = new std::unordered_map<PyCodeObject*, Live>();
  auto it = known->find(code);
  if (it == known->end()) {
    Py_INCREF(code);
    it = known->emplace(code, compute(code)).first;
  }
  std::vector<bool>& live = it->second[position];
  if (live.empty())
    live.assign(static_cast<size_t>(code->co_nlocalsplus), true);  // no instruction starts here
  return live;
}

bool has_handler(PyCodeObject* code, int instruction) {
  Handler handler;
  return find_handler(code, instruction / static_cast<int>(sizeof(_Py_CODEUNIT)), &handler);
}

bool is_assertion(PyCodeObject* code, int instruction) {
  const std::vector<Instruction> all = instructions_of(code);
  const int unit = instruction / static_cast<int>(sizeof(_Py_CODEUNIT));
  const auto find = [&](int at) {
    return std::find_if(all.begin(), all.end(),
                        [&](const Instruction& in) { return in.start <= at && at <= in.at; });
  };
  const auto raises = [&](auto in) {
    for (; in != all.end(); ++in) {
      if (in->opcode == RAISE_VARARGS) return true;
      if (in->opcode == RETURN_VALUE || jump_target(*in) >= 0) return false;
    }
    return false;
  };
  const auto jump = find(unit);
  if (jump == all.end() || jump_target(*jump) < 0) return false;
  return raises(jump + 1) || raises(find(jump_target(*jump)));
}

}  // namespace flashpoint
