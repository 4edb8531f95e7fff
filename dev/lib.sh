# Sourced by the scripts of this folder.

# Says what comes next.
step() { echo "==> $*"; }

# Ends the script with a sentence that says what to do.
fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

# A python3 that can make virtual environments: the one on the PATH, or else Debian's.
python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null && { echo "$candidate"; return; }
  done
  echo python3
}
