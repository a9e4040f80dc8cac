#pragma once
/// manifest.json of a run folder: which blocks are committed, and everything that decided them.

#include "io/run_folder.h"
#include "src/base/json.h"

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace espalier {

/// A committed block with what the run measured on it.
struct BlockRecord {
    FileRecord file;
    Json metrics;
};

/// As manifests have it: {"file", "bytes", "xxh3_128"}.
Json to_json(const FileRecord& record);
/// Throws Json::Error, or InputError naming `source`.
FileRecord file_record_from(const Json& json, const std::string& source);
/// Throws InputError when the file is missing or is not the one of the record; reads all of it.
void verify_file(const RunFolder& run, const FileRecord& record);

/// `options` are the effective values that decide the result; a resumed run must have the same.
struct Manifest {
    std::string run_id;
    std::string program_version;
    std::string model_path, model_identity;
    std::string calibration_path, calibration_sha256;
    std::size_t blocks_in_model = 0;
    Json options;        ///< decide the result
    Json provenance;     ///< command line, origins of options, host, ranks … of the last session
    Json learning_rate;  ///< of the regional optimiser: value, and the search when it was `auto`; null before it is
                         ///< known
    std::map<std::size_t, BlockRecord> blocks;
    std::vector<FileRecord> outer_files;  ///< of a complete run: non_block.h5, model.h5, config.json
    bool complete = false;

    /// Throws InputError when the folder has none, or when it cannot be used.
    static Manifest read(const RunFolder& run);
    /// Replaces the folder's manifest.
    void write(const RunFolder& run) const { run.write_manifest(to_json()); }

    Json to_json() const;
    /// Throws InputError naming `source`.
    static Manifest from_json(const Json& json, const std::string& source);
    /// SHA-256 over everything that decides the result: program version, model, calibration tokens, options.
    std::string configuration_sha256() const;

  private:
    void check(std::size_t listed_blocks, const std::string& source) const;
};

}  // namespace espalier
