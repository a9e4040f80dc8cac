#pragma once
/// HDF5 files are opened here and nowhere else: without HDF5's file locks, and with one place for the words of a failed
/// open. Only files in io/ may include this header, which knows hdf5.h.
///
/// HDF5 locks every file it opens, and on a mount without locks (many Lustre, NFS, GPFS, FUSE mounts) takes the refusal
/// for a damaged file. A run folder has one writer, which its own lock sees to (RunLock), and readers of finished files
/// only; so no lock of HDF5's protects anything here.

#include "io/hdf5_handle.h"

#include <hdf5.h>

#include <filesystem>
#include <string>

namespace espalier {

/// To be called before HDF5 starts, which then reads the variable HDF5_USE_FILE_LOCKING: site modules export TRUE or
/// BEST_EFFORT, and that wins over what open_hdf5 and create_hdf5 ask for.
void switch_off_hdf5_locks();

/// Opens a file for reading. The caller holds lock_hdf5() and closes. Throws InputError that tells a file that is
/// absent, not permitted, no HDF5 file, locked, and damaged or unfinished apart.
hid_t open_hdf5(const std::filesystem::path& path);

/// How objects of a file are to be opened, so that external links open their files without locks, too: for links,
/// datasets and attributes by name. The caller holds lock_hdf5().
Hdf5Handle access_through_links();

/// Creates or truncates a file. The caller holds lock_hdf5() and closes. Throws ResourceError with the system's words.
hid_t create_hdf5(const std::filesystem::path& path);

/// Why the HDF5 call just before has failed: ": No space left on device", or HDF5's own words in parentheses; empty
/// when it has left none. To be asked before any other HDF5 call.
std::string hdf5_reason();

/// The sentence of open_hdf5 for an H5Fopen of `path` that has just failed.
std::string describe_failed_open(const std::filesystem::path& path);

}  // namespace espalier
