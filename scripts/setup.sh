#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Sets the checkout up: Debian packages, virtual environment, requirements, native build, installation (not editable).
# Does each step only if what it depends on has changed; with nothing changed it is done in a fraction of a second.
# Knows how to install; knows nothing of what is installed. PYTHON, VENV and VSCSI_SANITIZE in the environment choose
# the interpreter, the folder of the virtual environment and gcc's -fsanitize= list.
set -eu
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
sanitize=${VSCSI_SANITIZE:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Two sets-up at once would build in one folder.
mkdir -p .setup
if command -v flock >/dev/null 2>&1; then
    exec 9>.setup/lock
    flock 9
fi

# ---- stamps: what each step depends on ----

requirements_stamp() {
    cat pyproject.toml scripts/setup.sh scripts/packages.txt | sha256sum | cut -c1-32
}

sources_stamp() {
    {
        printf '%s\n' "$sanitize" "$PWD"
        find vscsi target initiator pyproject.toml setup.py README.md -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-32
}

stamped() { [ -r "$venv/.vscsi-$1" ] && [ "$(cat "$venv/.vscsi-$1")" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$venv/.vscsi-$1"; }

# ---- Debian packages ----

listed() { awk -v need="$1" '$1 !~ /^#/ && $2 == need { print $1 }' scripts/packages.txt; }

missing() {
    for package in $(listed "$1"); do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
        ii*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

install_packages() {
    apt-get install -y --no-install-recommends "$@" >&2
}

packages() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        say "not a Debian system: the packages in scripts/packages.txt are yours to provide"
        return
    fi
    build=$(missing build)
    tests=$(missing test)
    [ -n "$build$tests" ] || return 0
    command="apt-get install -y --no-install-recommends $build$tests"
    if [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        say "installing Debian packages: $build$tests"
        apt-get update >&2 || say "apt-get update failed; trying with the lists as they are"
        # shellcheck disable=SC2086 # a list of words
        if [ -n "$build" ]; then install_packages $build || die "cannot install: $build"; fi
        # shellcheck disable=SC2086
        if [ -n "$tests" ]; then install_packages $tests || say "cannot install: $tests (some tests will be skipped)"; fi
    elif [ -n "$build" ]; then
        die "Debian packages are missing; type: sudo $command"
    else
        say "some tests will be skipped; to run them all, type: sudo $command"
    fi
}

# ---- Python ----

CHECK='
import os, sys, sysconfig
import ensurepip, venv
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
'

pick_python() {
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.11 python3.12 python3.13 python3.14}; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$CHECK" 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no Python 3.11 or later with venv and C headers found; name one: make setup PYTHON=/path/to/python3"
}

# A virtual environment that was moved or whose interpreter is gone does not know its own folder any more.
usable() {
    [ -x "$venv/bin/python" ] &&
        "$venv/bin/python" -c 'import os, sys, pip; sys.exit(not os.path.samefile(sys.prefix, sys.argv[1]))' "$venv" 2>/dev/null
}

make_venv() {
    if ! usable; then
        rm -rf "$venv"
        python=$(pick_python)
        say "creating $venv with $python"
        "$python" -m venv "$venv"
    fi
}

REQUIREMENTS='
import tomllib
with open("pyproject.toml", "rb") as file:
    facts = tomllib.load(file)
wanted = facts["build-system"]["requires"] + facts["project"]["dependencies"]
for extra in facts["project"]["optional-dependencies"].values():
    wanted += extra
print("\n".join(wanted))
'

install_requirements() {
    say "installing requirements"
    "$venv/bin/python" -c "$REQUIREMENTS" >.setup/requirements.txt
    "$venv/bin/python" -m pip install --quiet --requirement .setup/requirements.txt
}

install_project() {
    say "building and installing vscsi${sanitize:+ with -fsanitize=$sanitize}"
    # Left-overs of another build would be installed with this one.
    rm -rf build ./*.egg-info
    if ! "$venv/bin/python" -m pip install --quiet --no-build-isolation --no-deps --force-reinstall . >.setup/build.log 2>&1; then
        cat .setup/build.log >&2
        die "the build failed"
    fi
    rm -rf build ./*.egg-info
}

# What only some want: NEED=peers installs the packages of that kind, and nothing else.
if [ -n "${NEED:-}" ]; then
    more=$(missing "$NEED")
    [ -n "$more" ] || exit 0
    command="apt-get install -y --no-install-recommends $more"
    [ "$(id -u)" = 0 ] || { say "what is not installed is left out; to have all, type: sudo $command"; exit 0; }
    export DEBIAN_FRONTEND=noninteractive
    say "installing Debian packages: $more"
    apt-get update >&2 || say "apt-get update failed; trying with the lists as they are"
    # shellcheck disable=SC2086 # a list of words
    install_packages $more || say "cannot install: $more (they will be left out)"
    exit 0
fi

requirements=$(requirements_stamp)
sources=$(sources_stamp)
if stamped requirements "$requirements" && stamped sources "$sources" && usable; then
    exit 0
fi
if ! stamped requirements "$requirements" || ! usable; then
    packages
    make_venv
    install_requirements
    stamp requirements "$requirements"
fi
install_project
stamp sources "$sources"
say "ready; the programs are in $venv/bin"
