#!/usr/bin/env bash
# Makes a virtual environment with the packages of a requirements file, once, and again when that file changes.
#   jobs/virtual_environment.sh FOLDER REQUIREMENTS [options of python3 -m venv]
#   jobs/virtual_environment.sh build/venv jobs/requirements.txt      # what the scripts in jobs/ need
set -euo pipefail
(($# >= 2)) || {
    echo "virtual_environment.sh: FOLDER and REQUIREMENTS are needed" >&2
    exit 2
}
folder=$1 requirements=$2
shift 2
if cmp -s "$requirements" "$folder/requirements.installed"; then exit 0; fi
/usr/bin/python3 -m venv --clear "$@" "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$requirements"
cp "$requirements" "$folder/requirements.installed"
