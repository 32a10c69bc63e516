#!/bin/sh
# Says whether a callback that was stored is genuine, with openssl and nothing else:
#
#     WEBHOOK_SECRET=whsec_… verify.sh headers.txt body.json [received-at]
#
# headers.txt has a `name: value` a line, body.json the bytes exactly as they came. received-at is in
# seconds since the epoch, now by default. Ends with 0 when the callback is genuine and was recent,
# with 1 when not, with 2 when it cannot tell. On a machine with other users: openssl takes the key
# as an argument, which they can see.
set -eu

cannot() {
  echo "cannot tell: $*" >&2
  exit 2
}
refuse() {
  echo "refused: $*" >&2
  exit 1
}

[ $# -ge 2 ] || cannot "usage: WEBHOOK_SECRET=whsec_… verify.sh headers.txt body.json [received-at]"
[ -r "$1" ] && [ -r "$2" ] || cannot "$1 or $2 cannot be read"
headers=$1 body=$2 now=${3:-$(date +%s)}

# The value of a header, whatever the case of its name.
header() {
  tr -d '\r' < "$headers" | sed -n "s/^$1:[[:space:]]*//Ip" | head -n 1
}

id=$(header webhook-id)
timestamp=$(header webhook-timestamp)
signatures=$(header webhook-signature)
[ -n "$id" ] || refuse "webhook-id is missing"
[ -n "$signatures" ] || refuse "webhook-signature is missing"
case $timestamp in
  '' | *[!0-9]* | ?????????????*) refuse "webhook-timestamp is missing or malformed" ;;
esac
# Without its leading zeros, which a shell takes for octal.
seconds=$(printf '%s' "$timestamp" | sed 's/^0*\(.\)/\1/')
age=$((now - seconds))
[ "$age" -le 300 ] && [ "$age" -ge -300 ] || refuse "webhook-timestamp is $age s old"

hmac() {
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary
}
hex() {
  od -An -v -tx1 | tr -d ' \n'
}

# Two texts are compared by what a key that nobody knows makes of them: the time it takes says
# nothing about either.
once=$(openssl rand -hex 32)
blind() {
  printf '%s' "$1" | hmac "$once" | hex
}

found=no
# Several secrets, with spaces between, while one takes the place of another.
for secret in ${WEBHOOK_SECRET:?is not set}; do
  case $secret in
    whsec_*) key=$(printf '%s' "${secret#whsec_}" | openssl base64 -d -A | hex) ;;
    *) cannot "a secret starts with whsec_" ;;
  esac
  [ ${#key} -ge 48 ] || cannot "a secret is whsec_ and base64"
  expected=$({ printf '%s.%s.' "$id" "$seconds" && cat "$body"; } | hmac "$key" | openssl base64 -A)
  wanted=$(blind "v1,$expected")
  set -f
  for signature in $signatures; do
    [ "$(blind "$signature")" != "$wanted" ] || found=yes
  done
  set +f
done
[ "$found" = yes ] || refuse "webhook-signature matches none of the secrets"
# What remains for a receiver: take in each webhook-id once.
echo "genuine: $id"
