#!/bin/sh
# Makes what nobody may know by default: an account and a key for each realm, and the word that NATS servers let each
# other in with. What is there already is kept. Run once by compose.yaml, as root, in the image of Antar.
set -eu
umask 077

# Realms, as in compose.yaml.
antar realm nats-config realm1 realm2 --credentials /keys --output /etc/nats/accounts.conf

secret=/keys/SYS/cluster
[ -s "$secret" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$secret"
word="$(cat "$secret")"

# What differs from server to server comes from its environment (NATS_NAME), what is secret from the head of the file.
{
    echo "NATS_CLUSTER_PASSWORD: \"$word\""
    echo "NATS_ROUTES: ["
    for server in nats1 nats2 nats3; do echo "  \"nats-route://route:$word@$server:6222\""; done
    echo "]"
    cat /deploy/nats/cluster/nats.conf
} >/etc/nats/cluster.conf
cp /deploy/nats/single.conf /etc/nats/single.conf

# What a realm signs with is a key of the same kind, in a file of its own.
for realm in realm1 realm2; do
    [ -s "/keys/$realm/realm.nk" ] && continue
    antar realm nats-config "$realm" --credentials /tmp/new --output /tmp/unused
    mv "/tmp/new/$realm/nats.nk" "/keys/$realm/realm.nk"
done

# The realms' processes are not root.
chown -R antar:antar /keys/realm1 /keys/realm2
