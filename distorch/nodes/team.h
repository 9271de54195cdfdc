#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "distorch/nodes/sampled_model.h"
#include "distorch/nodes/settings.h"
#include "distorch/sampling/several_calls.h"
#include "distorch/streaming/split_choice.h"
#include "distorch/streaming/worker.h"

namespace distorch::nodes {

/// The devices that a model's conditionings may be computed on at the same time, its own first: as
/// many accelerators as the model allows (MultiGPU CFG Split), else those of the settings. Its own
/// alone where it does not compute on an accelerator, or rests where an allocation says.
std::vector<std::string> team_devices(const Model& model, const Settings& settings,
                                      const streaming::Engine& engine);

/// A model of a run on several devices at once, as sampling sees one: the conditionings of a step
/// are shared out over replicas of the model (replicas.h) that compute at the same time, each on a
/// thread of its own. Everything else is the first one's. ControlNets on the model's device have
/// replicas too; those that were put elsewhere serve all, one at a time. Results are what one
/// device gives for calls of the same sizes.
class Team final : public sampling::X0Model, public sampling::SeveralCalls {
 public:
  /// The team of a run, its weights in place for as long as it lives; null where one device does
  /// it, as there are fewer than two conditionings or devices, or as it is predicted to be no
  /// slower so. `own` is not prepared then. `own` must outlive it.
  static std::unique_ptr<Team> make(SampledModel& own, const RunShape& shape,
                                    streaming::Engine& engine, std::vector<std::string> devices);

  std::size_t at_once() const override { return 1 + members_.size(); }
  std::vector<at::Tensor> apply_all(const std::vector<sampling::NetworkCall>& calls) override;

  const sampling::ModelSampling& sampling() const override { return own_.sampling(); }
  at::Device device() const override { return own_.device(); }
  void expect(const std::vector<float>& sigmas) override {
    for (std::size_t place = 0; place < at_once(); ++place) at(place).expect(sigmas);
  }
  at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma,
                   const sampling::BatchedInputs& inputs,
                   const sampling::CallFacts& facts) override {
    return own_.apply(x, sigma, inputs, facts);
  }
  sampling::ModelInputs encode(const sampling::ConditioningItem& item,
                               const sampling::EncodeContext& context) const override {
    return own_.encode(item, context);
  }
  bool fits(at::IntArrayRef x_shape,
            const std::vector<const sampling::ModelInputs*>& inputs) const override {
    return own_.fits(x_shape, inputs);
  }
  at::Tensor scale_latent_inpaint(const at::Tensor& sigma, const at::Tensor& noise,
                                  const at::Tensor& latent_image) const override {
    return own_.scale_latent_inpaint(sigma, noise, latent_image);
  }
  at::Tensor process_latent_in(const at::Tensor& latent) const override {
    return own_.process_latent_in(latent);
  }
  at::Tensor process_latent_out(const at::Tensor& latent) const override {
    return own_.process_latent_out(latent);
  }
  std::int64_t latent_channels() const override { return own_.latent_channels(); }
  int latent_dimensions() const override { return own_.latent_dimensions(); }

 private:
  /// A replica with the run's conditionings as it sees them.
  struct Member {
    explicit Member(const Model& model) : sampled(model) {}
    SampledModel sampled;
    sampling::Conditioning positive, negative, third;
    /// What stands here for the controls of the run's conditionings.
    std::map<const sampling::Control*, std::shared_ptr<const ControlUse>> controls;
    streaming::Worker worker;
  };

  Team(SampledModel& own, streaming::Engine& engine) : own_(own), engine_(engine) {}
  void add(const std::string& device, const RunShape& shape);
  void prepare(const RunShape& shape, const std::vector<std::string>& devices);
  std::shared_ptr<const ControlUse> control_on(Member& member,
                                               const std::shared_ptr<const ControlUse>& use);
  streaming::SplitChoice choose(const RunShape& shape);
  streaming::SplitSide side(SampledModel& sampled, const RunShape& shape);
  static RunShape shape_of(const Member& member, RunShape shape);
  SampledModel& at(std::size_t place) { return place == 0 ? own_ : members_[place - 1]->sampled; }
  std::vector<std::vector<std::size_t>> share_out(
      const std::vector<sampling::NetworkCall>& calls) const;
  sampling::NetworkCall moved(std::size_t place, const sampling::NetworkCall& call);

  SampledModel& own_;
  streaming::Engine& engine_;
  std::vector<std::unique_ptr<Member>> members_;  // beside the model itself
  std::vector<double> each_s_;                    // of a call, by place
  std::mutex turns_;                              // of ControlNets that serve all
  bool shares_controls_ = false;
};

}  // namespace distorch::nodes
