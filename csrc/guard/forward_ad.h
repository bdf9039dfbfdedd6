// Whether a level of forward-mode AD is open in this process: Python code numbers them, and only C++ knows.
#pragma once

namespace flashpoint {

bool in_forward_ad();

}  // namespace flashpoint
