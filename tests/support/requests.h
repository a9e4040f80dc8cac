#pragma once
/// Requests made up for tests.

#include "io/request_file.h"

#include <cstdint>
#include <vector>

namespace espalier::support {

inline void add_request(RequestTable& requests, const std::vector<std::int32_t>& context,
                        const std::vector<std::int32_t>& continuation) {
    const auto append = [](const std::vector<std::int32_t>& more, std::vector<std::int32_t>& ids,
                           std::vector<std::size_t>& begin) {
        if (begin.empty()) begin.push_back(0);
        ids.insert(ids.end(), more.begin(), more.end());
        begin.push_back(ids.size());
    };
    append(context, requests.context_ids, requests.context_begin);
    append(continuation, requests.continuation_ids, requests.continuation_begin);
}

}  // namespace espalier::support
