#include "eval/operators.h"

namespace flashpoint {
namespace {

PyObject* power(PyObject* left, PyObject* right) { return PyNumber_Power(left, right, Py_None); }
PyObject* inplace_power(PyObject* left, PyObject* right) {
  return PyNumber_InPlacePower(left, right, Py_None);
}

}  // namespace

static_assert(NB_ADD == 0 && NB_AND == 1 && NB_FLOOR_DIVIDE == 2 && NB_LSHIFT == 3 &&
              NB_MATRIX_MULTIPLY == 4 && NB_MULTIPLY == 5 && NB_REMAINDER == 6 && NB_OR == 7 &&
              NB_POWER == 8 && NB_RSHIFT == 9 && NB_SUBTRACT == 10 && NB_TRUE_DIVIDE == 11 && NB_XOR == 12 &&
              NB_INPLACE_ADD == 13 && NB_INPLACE_XOR == 25);

const binaryfunc binary_operations[kBinaryOperations] = {
    PyNumber_Add,
    PyNumber_And,
    PyNumber_FloorDivide,
    PyNumber_Lshift,
    PyNumber_MatrixMultiply,
    PyNumber_Multiply,
    PyNumber_Remainder,
    PyNumber_Or,
    power,
    PyNumber_Rshift,
    PyNumber_Subtract,
    PyNumber_TrueDivide,
    PyNumber_Xor,
    PyNumber_InPlaceAdd,
    PyNumber_InPlaceAnd,
    PyNumber_InPlaceFloorDivide,
    PyNumber_InPlaceLshift,
    PyNumber_InPlaceMatrixMultiply,
    PyNumber_InPlaceMultiply,
    PyNumber_InPlaceRemainder,
    PyNumber_InPlaceOr,
    inplace_power,
    PyNumber_InPlaceRshift,
    PyNumber_InPlaceSubtract,
    PyNumber_InPlaceTrueDivide,
    PyNumber_InPlaceXor,
};

}  // namespace flashpoint
