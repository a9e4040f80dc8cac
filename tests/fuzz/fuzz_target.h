#pragma once
/// What all fuzz targets share: InputError is the only exception that may come out of a parser, and its sentence is
/// short enough for a person.

#include "src/base/error.h"
#include "src/base/json.h"

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace espalier {

/// Ends the process with a message, which libFuzzer reports as a crash.
[[noreturn]] inline void fuzz_failure(const std::string& what) {
    std::fprintf(stderr, "fuzz failure: %s\n", what.c_str());
    std::abort();
}

/// For properties of accepted input.
inline void demand(bool condition, const char* property) {
    if (!condition) fuzz_failure(property);
}

/// Runs `parse`. InputError is the expected answer to bad input; anything else ends the process.
template <typename Parse>
void only_input_errors(const Parse& parse) {
    try {
        parse();
    } catch (const InputError& error) {
        if (std::string_view(error.what()).empty()) fuzz_failure("an empty sentence");
    } catch (const std::exception& error) {
        fuzz_failure(std::string("not an InputError: ") + error.what());
    }
}

/// `accepted`, a manifest that was read, is the same after being written and read again.
template <typename Accepted>
void demand_same_after_writing(const Accepted& accepted) {
    const Json written = accepted.to_json();
    demand(Accepted::from_json(parse_strict_json(written.dump(), "again"), "again").to_json() == written,
           "the same manifest after writing and reading");
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

/// Takes the input apart, byte by byte; zeros when it is used up.
class Choices {
  public:
    Choices(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
    std::uint8_t byte() { return size_ == 0 ? std::uint8_t{0} : (--size_, *data_++); }
    std::uint64_t word() {
        std::uint64_t value = 0;
        for (int i = 0; i < 8; ++i) value = (value << 8) | byte();
        return value;
    }
    bool empty() const { return size_ == 0; }

  private:
    const std::uint8_t* data_;
    std::size_t size_;
};

/// A folder of this process in $TMPDIR, which run.sh puts into memory; removed at a normal exit.
class ScratchFolder {
  public:
    ScratchFolder() {
        path_ = std::filesystem::temp_directory_path() / ("espalier-fuzz-" + std::to_string(::getpid()));
        std::filesystem::create_directories(path_);
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    ~ScratchFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    const std::filesystem::path& path() const { return path_; }
    void write(const std::string& name, std::string_view content) const {
        std::ofstream file(path_ / name, std::ios::binary | std::ios::trunc);
        file.write(content.data(), static_cast<std::streamsize>(content.size()));
    }

  private:
    std::filesystem::path path_;
};

}  // namespace espalier
