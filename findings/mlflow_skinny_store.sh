#!/usr/bin/env bash
# mlflow-skinny, MLflow's small client, cannot begin a run as it is installed: its default store is a SQLite database
# for which it lacks the packages, and the error speaks of the model registry. The store of files, which needs none, is
# refused unless a variable allows it. SQLAlchemy and Alembic beside it are enough; the large package is not needed.
#
# A reader expects: a client without a server writes to a local folder, as it did for years, or names what is missing.
# Versions: mlflow-skinny 3.17.2, SQLAlchemy 2.1.9, Alembic 1.20.1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mlflow-skinny==3.17.2
cd "$work"
unset MLFLOW_TRACKING_URI MLFLOW_ALLOW_FILE_STORE
cat > begin.py <<'PYTHON'
import mlflow

client = mlflow.MlflowClient()
run = client.create_run(client.create_experiment("tumours"))
client.log_metric(run.info.run_id, "accuracy", 0.5)
print("metrics:", client.get_run(run.info.run_id).data.metrics)
PYTHON
fails() { # NAME WORDS: the error's last line has these words
    local said
    if said=$(venv/bin/python begin.py 2>&1); then
        echo "$1: it works now" >&2
        return 1
    fi
    said=${said##*$'\n'}
    echo "$1: ${said:0:150}"
    [[ $said == *"$2"* ]]
}
fails "as installed" "Model registry functionality is unavailable; got unsupported URI 'sqlite:"
MLFLOW_TRACKING_URI=file://$work/store fails "files" "in maintenance mode"
venv/bin/pip install --quiet SQLAlchemy==2.1.9 alembic==1.20.1
said=$(venv/bin/python begin.py 2>/dev/null)
echo "with SQLAlchemy and Alembic: $said"
[[ $said == "metrics: {'accuracy': 0.5}" ]]
