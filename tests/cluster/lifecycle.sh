# What `cluster up` makes before and `cluster down` removes after; sourced by tests/cluster/cluster.
# shellcheck shell=bash disable=SC2154

# The state folder: keys, tokens, configuration. Nothing in it is worth more than the cluster's short life.
prepare() {
    case $state in
    /run/* | /var/lib/* | /var/log/*) fail "SHEAVE_CLUSTER_DIR=$state: not below /run, /var/lib or /var/log, which the cluster has its own of" ;;
    /*) ;;
    *) fail "SHEAVE_CLUSTER_DIR=$state must be an absolute path" ;;
    esac
    [ ${#state} -le 60 ] || fail "SHEAVE_CLUSTER_DIR=$state is too long: sockets are made below it; at most 60 characters"
    [ ! -e "$state" ] || fail "$state exists and is not a cluster's folder; remove it, or name another in SHEAVE_CLUSTER_DIR"
    mkdir -m 700 "$state"
    touch "$state/$marker"
    mkdir -p "$state"/{logs,pids,cni,tmp,cache,apiserver,kubelet/seccomp/profiles}
    touch "$state/resolv.conf"
    # The running cluster keeps its tools when the checkout changes.
    "$here/build" --cached kubernetes helm etcd jaeger | paste -sd : >"$state/tools"
    make_credentials
    render containerd.toml containerd.toml
    render cni.conflist cni/pods.conflist
    render kubelet.yaml kubelet.yaml
    render kube-proxy.yaml kube-proxy.yaml
    cp "$here"/seccomp/*.json "$state/kubelet/seccomp/profiles/"
    make_pause_image
    make_cgroups
}

marker=this-is-a-sheave-test-cluster

make_credentials() {
    local user groups token
    openssl ecparam -name prime256v1 -genkey -noout -out "$state/service-accounts.key"
    # Who the components are is built into Kubernetes' own roles.
    while read -r user groups file; do
        token=$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')
        echo "$token,$user,$user,\"$groups\"" >>"$state/tokens.csv"
        cat >"$state/$file" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "$apiserver", certificate-authority: "$state/apiserver/apiserver.crt"}}]
users: [{name: me, user: {token: "$token"}}]
contexts: [{name: test, context: {cluster: test, user: me}}]
current-context: test
YAML
    done <<'USERS'
admin system:masters kubeconfig
system:kube-controller-manager - kube-controller-manager.kubeconfig
system:kube-scheduler - kube-scheduler.kubeconfig
system:kube-proxy - kube-proxy.kubeconfig
system:node:node system:nodes kubelet.kubeconfig
USERS
}

render() {
    sed -e "s,@STATE@,$state,g" -e "s,@CGROUP@,$cgroup,g" -e "s,@SNAPSHOTTER@,$(snapshotter),g" \
        -e "s,@CNI_BIN@,$(cni_bin),g" "$here/config/$1" >"$state/$2"
}

# A container's own root folder is often an overlay, and an overlay cannot lie on another.
snapshotter() {
    mkdir -p "$state"/tmp/{lower,upper,work,merged}
    if unshare --mount mount -t overlay -o "lowerdir=$state/tmp/lower,upperdir=$state/tmp/upper,workdir=$state/tmp/work" \
        overlay "$state/tmp/merged" 2>/dev/null; then
        echo overlayfs
    else
        echo native
    fi
}

cni_bin() {
    local dir
    for dir in /usr/lib/cni /opt/cni/bin; do
        if [ -x "$dir/bridge" ]; then
            echo "$dir"
            return
        fi
    done
    fail "no CNI plugins in /usr/lib/cni nor /opt/cni/bin; install containernetworking-plugins"
}

make_pause_image() {
    mkdir "$state/pause"
    cc -static -O2 -Wall -Wextra -s -o "$state/pause/pause" "$here/pause.c"
    "$here/archive" "$state/pause" localhost/pause:1 /pause "$state/pause.tar"
}

# The kubelet wants its root to exist.
make_cgroups() {
    local hierarchy file
    while read -r hierarchy; do
        mkdir -p "$hierarchy$cgroup"
        # An empty cpuset takes no process, and only new ones inherit.
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy$cgroup/$file"
        done
        # cgroup v2: children have the controllers that the parent hands down.
        if [ "$hierarchy" = /sys/fs/cgroup ]; then
            hand_down "$hierarchy" "$hierarchy$cgroup"
        fi
    done < <(cgroup_roots)
}

hand_down() {
    local folder controller
    for folder in "$@"; do
        for controller in cpu cpuset memory pids io hugetlb; do
            echo "+$controller" >"$folder/cgroup.subtree_control" 2>/dev/null || true
        done
        grep -qw memory "$folder/cgroup.subtree_control" ||
            fail "cgroup v2: cannot hand down controllers in $folder (in a container, it needs a cgroup namespace whose root has no processes)"
    done
}

# A session of its own, so that neither the terminal nor the caller's end takes it along.
launch() {
    local parent child=
    PATH="$(cat "$state/tools"):$PATH:/usr/sbin:/sbin" KUBECONFIG="$state/kubeconfig" KUBECACHEDIR="$state/cache/kubectl" \
        TMPDIR="$state/tmp" SHEAVE_CLUSTER_DIR="$state"\
        setsid unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
        bash "$here/node" </dev/null >"$state/logs/node.log" 2>&1 8<&- &
    parent=$!
    echo "$parent $(started_at "$parent")" >"$state/parent.pid"
    wait_until 10 child_of "$parent" || fail "the namespaces could not be made: $(cat "$state/logs/node.log")"
    child=$(child_of "$parent")
    readlink "/proc/$child/ns/mnt" >"$state/namespace"
    echo "$child $(started_at "$child")" >"$state/node.pid"
    wait_until 30 test -S "/proc/$child/root/run/containerd/containerd.sock" ||
        fail "containerd did not start: $(tail -n 5 "$state/logs/containerd.log")"
    load "$state/pause.tar" >/dev/null
}

child_of() {
    local stat fields
    for stat in /proc/[0-9]*/stat; do
        fields=$(cat "$stat" 2>/dev/null) || continue
        set -- "$1" ${fields##*) }
        if [ "$3" = "$1" ]; then
            stat=${stat#/proc/}
            echo "${stat%/stat}"
            return
        fi
    done
    return 1
}

# The kernel ends every process of the namespaces with the first one.
end_processes() {
    local file pid start
    for file in node.pid parent.pid; do
        [ -s "$state/$file" ] || continue
        read -r pid start <"$state/$file"
        if [ "$(started_at "$pid")" = "$start" ]; then
            kill -KILL "$pid" 2>/dev/null || true
            wait_until 20 gone "$pid" "$start" || fail "process $pid does not end; is it stuck in the kernel?"
        fi
    done
}

gone() { [ "$(started_at "$1")" != "$2" ]; }

# What processes leave behind; also after an `up` that died half-way.
clean() {
    wait_until 20 remove_cgroups || fail "cgroups are still in use: $(leftover_cgroups | paste -sd ' ')"
    [ -e "$state/$marker" ] || return 0
    rm -rf "$state"
}

remove_cgroups() {
    # Deepest first; they are empty once the last process in them is gone.
    leftover_cgroups | xargs --no-run-if-empty rmdir
}

leftover_cgroups() {
    local hierarchy
    while read -r hierarchy; do
        [ ! -d "$hierarchy$cgroup" ] || find "$hierarchy$cgroup" -depth -type d
    done < <(cgroup_roots)
}
