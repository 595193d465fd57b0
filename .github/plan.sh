#!/usr/bin/env bash
# Plans terraform/azure for $ENVIRONMENT, as plan.out and as text, plan.txt. Arguments go to `terraform plan`.
set -euo pipefail
cd "$(dirname "$0")/../terraform/azure"
terraform init -backend-config="environments/$ENVIRONMENT.backend.hcl" -backend-config="storage_account_name=$STATE_ACCOUNT"
terraform plan "$@" -var-file="environments/$ENVIRONMENT.tfvars" -out=plan.out
terraform show -no-color plan.out > plan.txt
