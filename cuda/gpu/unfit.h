// What is said where the machine is too old for this build.
#pragma once

#include <string>

namespace orcd::gpu {

// Of a driver for CUDA `version` (13.0 as 13000), 0 if there is none.
std::string unfit_driver(int version);

// Of a GPU that this build has no kernels for, with its driver's version.
std::string unfit_device(const char* name, int major, int minor, int driver);

}  // namespace orcd::gpu
