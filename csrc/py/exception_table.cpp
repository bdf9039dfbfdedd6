#include "py/exception_table.h"

namespace flashpoint {
namespace {

// The exception table: entries of four varints (start, length, target, depth and lasti), six bits a byte,
// bit 6 = more follows, bit 7 = first byte of an entry.
class TableReader {
 public:
  explicit TableReader(PyObject* table)
      : at_(reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(table))),
        end_(at_ + PyBytes_GET_SIZE(table)) {}
  bool done() const { return at_ >= end_; }
  int next() {
    int value = *at_ & 63;
    while (*at_++ & 64) value = (value << 6) | (*at_ & 63);
    return value;
  }

 private:
  const unsigned char* at_;
  const unsigned char* end_;
};

}  // namespace

bool find_handler(PyCodeObject* code, int offset, Handler* handler) {
  TableReader table(code->co_exceptiontable);
  while (!table.done()) {
    const int start = table.next();
    const int length = table.next();
    const int target = table.next();
    const int depth_and_lasti = table.next();
    if (start > offset) return false;
    if (offset < start + length) {
      *handler = {target, depth_and_lasti >> 1, (depth_and_lasti & 1) != 0};
      return true;
    }
  }
  return false;
}

}  // namespace flashpoint
