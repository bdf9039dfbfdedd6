// format(), str(), repr() and str.format: which form each argument is asked for.
#include <string>
#include <string_view>

#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

// What the replacement fields of a format string ask for.
struct Fields {
  bool reads_inside = false;  // {0.name} or {0[key]}
  bool repr = false;          // !r or !a
};

Fields fields_of(std::string_view text) {
  Fields fields;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '{') continue;
    if (i + 1 < text.size() && text[i + 1] == '{') {
      ++i;
      continue;
    }
    for (++i; i < text.size() && text[i] != '}' && text[i] != ':'; ++i) {
      if (text[i] == '.' || text[i] == '[') fields.reads_inside = true;
      if (text[i] == '!' && i + 1 < text.size() && (text[i + 1] == 'r' || text[i + 1] == 'a'))
        fields.repr = true;
    }
    // Fields inside the specification are found by the outer loop.
  }
  return fields;
}

}  // namespace

void Rules::format(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t count) const {
  if (count == 0) return;
  const std::string_view name = row.name;
  if (name == "str" || name == "repr" || name == "ascii" || name == "format") {
    const auto how = name == "str"      ? Recorder::Text::kStr
                     : name == "format" ? Recorder::Text::kFormat
                                        : Recorder::Text::kRepr;
    return r.read_text(argv[0], how);  // further arguments are text
  }
  const char* text = PyUnicode_Check(argv[0]) ? PyUnicode_AsUTF8(argv[0]) : nullptr;
  if (text == nullptr) {
    PyErr_Clear();
    return r.end(Break::k_format_object, Py_TYPE(argv[0])->tp_name);
  }
  const Fields fields = fields_of(text);
  const bool mapping = name == "str.format_map";
  for (Py_ssize_t i = 1; i < count && !r.ended(); ++i) {
    PyObject* a = argv[i];
    if (fields.reads_inside || mapping) {
      // Attributes and items are read by C code: only what is plain all the way down.
      if (PyType_HasFeature(Py_TYPE(a), Py_TPFLAGS_HEAPTYPE) || is_tensor(a) || !r.read_deep(a))
        return r.end(Break::k_format_object, Py_TYPE(a)->tp_name);
      r.read_text(a, Recorder::Text::kRepr);
      continue;
    }
    r.read_text(a, Recorder::Text::kFormat);
    if (fields.repr) r.read_text(a, Recorder::Text::kRepr);
  }
}

}  // namespace flashpoint
