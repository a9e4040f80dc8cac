#include "io/token_file.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "io/npy.h"
#include "io/synthetic_tokens.h"
#include "src/base/error.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>

namespace espalier {

namespace {

constexpr std::uint64_t most_ids = std::uint64_t{1} << 33;

struct RawTokens {
    std::vector<std::uint64_t> shape;
    std::vector<std::int64_t> values;
};

std::uint64_t checked_count(const std::vector<std::uint64_t>& shape, const std::string& source) {
    if (shape.size() != 1 && shape.size() != 2) {
        throw InputError(source + ": token ids have " + std::to_string(shape.size()) +
                         " dimensions; [samples, sequence length] or one dimension is expected");
    }
    std::uint64_t count = 1;
    for (const std::uint64_t dimension : shape) {
        if (__builtin_mul_overflow(count, dimension, &count) || count > most_ids) {
            throw InputError(source + ": more than " + std::to_string(most_ids) + " token ids");
        }
    }
    if (count == 0) throw InputError(source + ": holds no token ids");
    return count;
}

template <typename Stored>
void widen(const std::vector<std::byte>& data, std::vector<std::int64_t>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        Stored value;
        std::memcpy(&value, data.data() + i * sizeof(Stored), sizeof(Stored));
        if constexpr (sizeof(Stored) == 8 && !std::numeric_limits<Stored>::is_signed) {
            values[i] = value > static_cast<Stored>(std::numeric_limits<std::int64_t>::max())
                            ? -1
                            : static_cast<std::int64_t>(value);
        } else {
            values[i] = static_cast<std::int64_t>(value);
        }
    }
}

RawTokens read_npy(const InputFile& file) {
    const std::string source = file.path().string();
    std::vector<std::byte> prefix(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 65536 + 12)));
    file.read(0, prefix);
    const NpyHeader header = parse_npy_header(prefix, file.size(), source);
    RawTokens raw{header.shape, {}};
    const std::uint64_t count = checked_count(header.shape, source);
    std::vector<std::byte> data(static_cast<std::size_t>(count) * header.item_bytes);
    file.read(header.data_offset, data);
    raw.values.resize(static_cast<std::size_t>(count));
    const bool is_signed = header.kind == 'i';
    switch (header.item_bytes) {
        case 2:
            is_signed ? widen<std::int16_t>(data, raw.values) : widen<std::uint16_t>(data, raw.values);
            break;
        case 4:
            is_signed ? widen<std::int32_t>(data, raw.values) : widen<std::uint32_t>(data, raw.values);
            break;
        default:
            is_signed ? widen<std::int64_t>(data, raw.values) : widen<std::uint64_t>(data, raw.values);
            break;
    }
    return raw;
}

RawTokens read_hdf5(const std::filesystem::path& path) {
    const Hdf5Reader file(path);
    RawTokens raw{file.integer_shape("/input_ids"), {}};
    const std::uint64_t count = checked_count(raw.shape, path.string() + " /input_ids");
    constexpr std::uint64_t best_compression = 1032;  // of deflate: a file cannot declare more than this times its size
    if (count / best_compression > std::filesystem::file_size(path)) {
        throw InputError(path.string() + ": /input_ids declares " + std::to_string(count) +
                         " token ids, more than a file of this size can hold");
    }
    raw.values.resize(static_cast<std::size_t>(count));
    file.read_integers("/input_ids", raw.values);
    return raw;
}

/// The name without ".gz" and without the ending of a text file; nothing when it has no such ending.
std::optional<std::string> stem_of_text(std::string name) {
    if (name.ends_with(".gz")) name.resize(name.size() - 3);
    for (const std::string_view ending : {".jsonl", ".json", ".txt", ".csv", ".parquet", ".text", ".md"}) {
        if (name.size() > ending.size() && name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
    }
    return {};
}

/// Whether the first bytes are those of a text: UTF-8 (cut anywhere) without control characters but white space.
bool begins_as_text(std::string_view content) {
    int following = 0;  // bytes that continue a character
    for (const char character : content) {
        const auto c = static_cast<unsigned char>(character);
        if (following > 0) {
            if ((c & 0xC0) != 0x80) return false;
            --following;
        } else if (c >= 0x80) {
            if (c < 0xC2 || c > 0xF4) return false;
            following = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        } else if (c == 0x7F || (c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f')) {
            return false;
        }
    }
    return !content.empty();
}

/// Refuses a file that holds no token ids in a format that we read, with what helps.
[[noreturn]] void refuse_format(const std::filesystem::path& path, std::string_view beginning, std::uint64_t bytes,
                                TokenPurpose purpose) {
    if (beginning.starts_with("version https://git-lfs")) {
        throw InputError(path.string() + " is a git-lfs pointer, not the file itself; run 'git lfs pull' beside it");
    }
    const std::optional<std::string> stem = stem_of_text(path.string());
    if (stem || begins_as_text(beginning) || beginning.starts_with("PAR1")) {
        const char* const kind = purpose == TokenPurpose::calibration ? "calibration" : "evaluation";
        throw InputError(path.string() + " holds text, not token ids (an HDF5 file with /input_ids or a .npy file); " +
                         "make them with: jobs/prepare_tokens.py " + kind + " --tokenizer MODEL_FOLDER --text " +
                         path.string() + " --output " + stem.value_or(path.string()) + ".h5");
    }
    if (bytes < 8) throw InputError(path.string() + " has only " + std::to_string(bytes) + " bytes");
    throw InputError(path.string() + " is neither an HDF5 file with /input_ids nor a .npy file");
}

}  // namespace

TokenTable read_token_file(const std::filesystem::path& path, std::size_t vocabulary, TokenPurpose purpose) {
    if (names_synthetic_tokens(path.string())) return make_synthetic_tokens(path.string(), vocabulary);
    const InputFile file(path);
    std::string beginning(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 1024)), '\0');
    file.read(0, std::as_writable_bytes(std::span(beginning)));
    RawTokens raw;
    if (beginning.starts_with("\x89HDF\r\n\x1a\n"))
        raw = read_hdf5(path);
    else if (beginning.size() >= 8 && beginning.starts_with("\x93NUMPY"))
        raw = read_npy(file);
    else
        refuse_format(path, beginning, file.size(), purpose);

    TokenTable table;
    table.rows = raw.shape.size() == 2 ? static_cast<std::size_t>(raw.shape[0]) : 1;
    table.columns = static_cast<std::size_t>(raw.shape.back());
    table.ids.reserve(raw.values.size());
    for (std::size_t i = 0; i < raw.values.size(); ++i) {
        if (raw.values[i] < 0 || static_cast<std::uint64_t>(raw.values[i]) >= vocabulary) {
            throw InputError(path.string() + ": token id " + std::to_string(raw.values[i]) + " at [" +
                             std::to_string(i / table.columns) + ", " + std::to_string(i % table.columns) +
                             "] is outside the model's vocabulary of " + std::to_string(vocabulary) +
                             " (tokens made with another tokenizer?)");
        }
        table.ids.push_back(static_cast<std::int32_t>(raw.values[i]));
    }
    table.sha256 = sha256_of_file(path);
    return table;
}

void write_token_file(const std::filesystem::path& path, std::size_t rows, std::size_t columns,
                      std::span<const std::int32_t> ids, const std::map<std::string, std::string>& attributes) {
    const std::filesystem::path temporary = path.string() + ".tmp";
    Hdf5Writer file(temporary);
    file.write_token_ids("/input_ids", rows, columns, ids);
    for (const auto& [name, value] : attributes) file.attribute("/input_ids", name, value);
    file.close();
    sync_file(temporary);
    rename_durably(temporary, path);
}

}  // namespace espalier
