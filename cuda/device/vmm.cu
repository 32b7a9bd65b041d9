#include "device/vmm.h"

#include <cuda.h>

#include <string>
#include <utility>

namespace orcd::device {
namespace {

// libcuda is reached through the runtime: the binary starts on a machine without a driver.
template <class F>
F entry(const char* name) {
  void* pointer = nullptr;
  cudaDriverEntryPointQueryResult found;
  ORCD_CUDA(cudaGetDriverEntryPointByVersion(name, &pointer, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || !pointer)
    throw Error(ErrorKind::kDevice, std::string("the CUDA driver lacks ") + name + "; install a newer driver");
  return reinterpret_cast<F>(pointer);
}

void check(CUresult code, const char* what) {
  if (code == CUDA_SUCCESS) return;
  const char* text = nullptr;
  static const auto get_string = entry<CUresult (*)(CUresult, const char**)>("cuGetErrorString");
  get_string(code, &text);
  throw Error(code == CUDA_ERROR_OUT_OF_MEMORY ? ErrorKind::kOutOfMemory : ErrorKind::kDevice,
              std::string(what) + " failed: " + (text ? text : "unknown error"));
}

#define DRIVER(name) entry<decltype(&name)>(#name)

CUmemAllocationProp properties(int ordinal) {
  CUmemAllocationProp p = {};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p.location.id = ordinal;
  p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return p;
}

uint64_t round_up(int ordinal, uint64_t bytes) {
  size_t granularity = 0;
  const CUmemAllocationProp p = properties(ordinal);
  check(DRIVER(cuMemGetAllocationGranularity)(&granularity, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
        "cuMemGetAllocationGranularity");
  return (bytes + granularity - 1) / granularity * granularity;
}

}  // namespace

Vmm Vmm::create(int ordinal, uint64_t bytes) {
  Vmm v;
  v.ordinal_ = ordinal;
  v.mapped_ = round_up(ordinal, bytes);
  const CUmemAllocationProp p = properties(ordinal);
  CUmemGenericAllocationHandle handle;
  check(DRIVER(cuMemCreate)(&handle, v.mapped_, &p, 0), "cuMemCreate");
  v.handle_ = handle;
  v.map(true);
  return v;
}

Vmm Vmm::import(int ordinal, int fd, uint64_t bytes, bool writable) {
  Vmm v;
  v.ordinal_ = ordinal;
  v.mapped_ = round_up(ordinal, bytes);
  CUmemGenericAllocationHandle handle;
  check(DRIVER(cuMemImportFromShareableHandle)(&handle, reinterpret_cast<void*>(uintptr_t(fd)),
                                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
        "cuMemImportFromShareableHandle");
  v.handle_ = handle;
  v.map(writable);
  return v;
}

void Vmm::map(int writable) {
  CUdeviceptr address = 0;
  check(DRIVER(cuMemAddressReserve)(&address, mapped_, 0, 0, 0), "cuMemAddressReserve");
  address_ = address;
  check(DRIVER(cuMemMap)(address_, mapped_, 0, handle_, 0), "cuMemMap");
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = ordinal_;
  access.flags = writable ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_READ;
  check(DRIVER(cuMemSetAccess)(address_, mapped_, &access, 1), "cuMemSetAccess");
}

void Vmm::make_read_only() {
  // Rights of a live mapping can't be taken back everywhere: unmap, then map anew at the same place.
  ORCD_CUDA(cudaDeviceSynchronize());
  check(DRIVER(cuMemUnmap)(address_, mapped_), "cuMemUnmap");
  check(DRIVER(cuMemMap)(address_, mapped_, 0, handle_, 0), "cuMemMap");
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = ordinal_;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READ;
  check(DRIVER(cuMemSetAccess)(address_, mapped_, &access, 1), "cuMemSetAccess, read-only");
}

int Vmm::export_fd() const {
  int fd = -1;
  check(DRIVER(cuMemExportToShareableHandle)(&fd, handle_, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
        "cuMemExportToShareableHandle");
  return fd;
}

Vmm::Vmm(Vmm&& other) noexcept { *this = std::move(other); }

Vmm& Vmm::operator=(Vmm&& other) noexcept {
  std::swap(ordinal_, other.ordinal_);
  std::swap(handle_, other.handle_);
  std::swap(address_, other.address_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Vmm::~Vmm() {
  // Errors are of no use here: the context may be gone, and the driver frees all with the process.
  try {
    if (address_) {
      DRIVER(cuMemUnmap)(address_, mapped_);
      DRIVER(cuMemAddressFree)(address_, mapped_);
    }
    if (handle_) DRIVER(cuMemRelease)(handle_);
  } catch (const Error&) {
  }
}

bool is_device_memory(const void* p, int ordinal) {
  CUmemorytype type = CUmemorytype(0);
  unsigned managed = 1;
  int device = -1;
  CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                  CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  void* values[] = {&type, &managed, &device};
  CUresult code = CUDA_ERROR_UNKNOWN;
  try {
    code = DRIVER(cuPointerGetAttributes)(3, wanted, values, CUdeviceptr(p));
  } catch (const Error&) {
    // A device that is lost holds nothing; whoever uses it next says why.
  }
  return code == CUDA_SUCCESS && type == CU_MEMORYTYPE_DEVICE && !managed && device == ordinal;
}

}  // namespace orcd::device
