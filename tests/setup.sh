# Sourced by tests/run, stress/run and bench/run: gets what is missing, builds. Every step says what it does.
# shellcheck shell=bash
#
#   setup_packages PACKAGE...        installs those Debian packages that are not installed; NAME:arm64 from that
#                                    architecture's, beside this machine's
#   setup_build FOLDER [OPTION...]   configures a build folder (new or not) with these meson options and builds it
#
# Run from the top of the source tree. Both end the script with status 1 when they cannot do their part.

# Run as root. Packages that bring a server must not start it: for the time of the installation a policy says so, unless
# the machine has a policy of its own.
setup_install_script='
set -e
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf "#!/bin/sh\nexit 101\n" > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap "rm -f /usr/sbin/policy-rc.d" EXIT
fi
for package; do
    case $package in
    *:*) architecture=${package#*:} ;;
    *) continue ;;
    esac
    if ! dpkg --print-foreign-architectures | grep -qx "$architecture"; then
        dpkg --add-architecture "$architecture"
        apt-get update -q
    fi
done
if ! ls /var/lib/apt/lists/*Packages* > /dev/null 2>&1; then
    apt-get update -q
fi
apt-get install -q -y --no-install-recommends "$@"
'

# A name alone means this machine's architecture; libraries of another may lie beside it.
setup_is_installed() {
    local architecture='all|'
    case $1 in
    *:*) architecture=${1#*:} ;;
    *) architecture+=$(dpkg --print-architecture) ;;
    esac
    dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$1" 2> /dev/null |
        grep -qxE "($architecture) installed"
}

setup_packages() {
    local package missing=()
    for package in "$@"; do
        setup_is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "== installing ${missing[*]}"
    if [ "$(id -u)" -eq 0 ]; then
        sh -c "$setup_install_script" sh "${missing[@]}" || exit 1
    elif sudo -n true 2> /dev/null; then
        sudo -n sh -c "$setup_install_script" sh "${missing[@]}" || exit 1
    else
        echo "These packages are missing, and only root may install them. Run:" >&2
        echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
}

setup_build() {
    local folder=$1
    shift
    if [ -e "$folder/build.ninja" ]; then
        echo "== building in $folder: meson configure $*"
        local option changeable=()
        for option; do # the compilers of a folder are chosen once
            [[ $option == --cross-file=* ]] || changeable+=("$option")
        done
        [ ${#changeable[@]} -eq 0 ] || meson configure "$folder" "${changeable[@]}" || exit 1
    else
        echo "== building in $folder: meson setup $*"
        meson setup "$folder" "$@" > "$folder.log" 2>&1 || {
            cat "$folder.log"
            exit 1
        }
        mv "$folder.log" "$folder/setup.log"
    fi
    ninja -C "$folder" --quiet || exit 1
}
