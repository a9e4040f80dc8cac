#include "src/prune/run_links.h"

namespace espalier {

RunLinks::RunLinks(const Session& session, Device& device, const Topology& topology)
    : session_(session),
      group_(session.make_group(topology.groups()[topology.group_of(session.rank(), 0).value()].ranks)),
      group_tensors_(*group_, device) {
    if (topology.groups().size() > 1) world_tensors_.emplace(session.world(), device);
}

void RunLinks::set_place_of_all(const std::string& place) const {
    session_.world().set_place(place);
    if (world_tensors_) world_tensors_->get().set_place(place);
}

}  // namespace espalier
