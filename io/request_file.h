#pragma once
/// Requests of downstream tasks, as jobs/prepare_requests.py makes them (docs/formats.md): token ids of contexts and of
/// the continuations whose likelihood is asked for, and the items of tasks that they are the choices of.

#include "src/base/index_range.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace espalier {

struct RequestTable {
    /// Of all requests, one after the other; request r has [begin[r], begin[r + 1]).
    std::vector<std::int32_t> context_ids, continuation_ids;
    std::vector<std::size_t> context_begin, continuation_begin;
    /// Of the answers' texts, for scores that do not depend on their lengths.
    std::vector<std::int32_t> characters, bytes;
    std::vector<std::size_t> item_begin;   ///< of each item's requests, in the same way
    std::vector<std::int32_t> gold, task;  ///< of each item: its right choice; its task
    std::vector<std::string> tasks;        ///< names
    std::string sha256;                    ///< of the file

    std::size_t size() const { return context_begin.size() - 1; }
    IndexRange requests_of_item(std::size_t item) const { return {item_begin[item], item_begin[item + 1]}; }
    std::span<const std::int32_t> context(std::size_t request) const {
        return std::span(context_ids)
            .subspan(context_begin[request], context_begin[request + 1] - context_begin[request]);
    }
    std::span<const std::int32_t> continuation(std::size_t request) const {
        return std::span(continuation_ids)
            .subspan(continuation_begin[request], continuation_begin[request + 1] - continuation_begin[request]);
    }
};

/// Reads and checks the file. Throws InputError naming it: another format, a dataset that is missing or does not fit
/// the others, no requests, a context or continuation without tokens, an item without a right choice, a token id that
/// is not below `vocabulary`.
RequestTable read_request_file(const std::filesystem::path& path, std::size_t vocabulary);

}  // namespace espalier
