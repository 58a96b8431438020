#!/usr/bin/env bash
# PMD in verl in the settings of OpenKimi, the paper's code: 512 prompts x 16 completions, minibatches of 32 prompts
# (16 updates a batch), learning rate 1e-6, tau .01 with rewards of 1 and -1, loss divided by length, no clipping, no
# KL penalty. With rewards of 1 and 0 the same law has tau = .005. Needs GPUs, verl with vLLM, and pip install
# 'pmdtheory[verl]' in the same environment on every node; MODEL, TRAIN, TEST, REWARD and GPUS can be set.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen2.5-7B} GPUS=${GPUS:-8} REWARD=${REWARD:-examples/verl_reward.py}
TRAIN=${TRAIN:-$HOME/data/dapo-math-17k.parquet} TEST=${TEST:-$HOME/data/aime-2024.parquet}

python3 -m verl.trainer.main_ppo \
    algorithm.adv_estimator=pmd-mean \
    +algorithm.pmd_tau=0.01 \
    algorithm.use_kl_in_reward=False \
    actor_rollout_ref.actor.policy_loss._target_=pmdllm.integrations.verl.PMDLossConfig \
    actor_rollout_ref.actor.policy_loss.loss_mode=pmd-sequence \
    '+actor_rollout_ref.actor.policy_loss.tau=${algorithm.pmd_tau}' \
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
    actor_rollout_ref.actor.use_kl_loss=False \
    actor_rollout_ref.actor.entropy_coeff=0 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=16 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.top_p=1.0 \
    data.train_files="$TRAIN" \
    data.val_files="$TEST" \
    data.train_batch_size=512 \
    data.max_prompt_length=2048 \
    data.max_response_length=8192 \
    reward.custom_reward_function.path="$REWARD" \
    trainer.n_gpus_per_node="$GPUS" \
    trainer.total_epochs=1 \
    trainer.logger='["console"]' \
    "$@"
