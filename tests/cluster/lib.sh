# What the scripts of the test cluster share; sourced by them, with `here` set to this folder.
# shellcheck shell=bash disable=SC2034,SC2154

root=$(cd "$here/../.." && pwd)
# One cluster per user; another folder is another cluster. Short, because sockets lie below it.
state=${SHEAVE_CLUSTER_DIR:-/tmp/sheave-cluster-$(id -u)}
# The cgroup of its pods, in each hierarchy that the machine has.
cgroup=/sheave-cluster${state//\//-}

node_ip=172.30.0.1
node_ip6=fd00:172:30::1
apiserver=https://$node_ip:6443

fail() {
    echo "tests/cluster/${0##*/}: $*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || fail "needs root, because it makes namespaces, mounts and cgroups; run it with sudo"
}

# wait_until SECONDS WHAT COMMAND...: polls; the caller decides what a missed deadline means.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# A process is named by its id and its start time, so that a recycled id is never taken for it.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # After the name in parentheses, which may hold anything, the 20th field is the 22nd of all.
    set -- ${stat##*) }
    [ "$1" != Z ] && echo "${20}"
}

cgroup_roots() {
    local kind
    kind=$(stat -f -c %T /sys/fs/cgroup)
    if [ "$kind" = cgroup2fs ]; then
        echo /sys/fs/cgroup
    else
        # /sys/fs/cgroup/cpu may be a link to cpu,cpuacct: each hierarchy once.
        find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
    fi
}
