#!/bin/sh
# What Home Assistant starts: models lie in /share/tiny-kws, options in /data/options.json.
set -eu
mkdir -p /tmp/models
folder=/share/tiny-kws
[ -d "$folder" ] || folder=/tmp/models
threshold=$(python -c 'import json; print(json.load(open("/data/options.json")).get("threshold") or "")')
python - <<'EOF' || true
import json, os, socket, urllib.request
body = {"service": "wyoming", "config": {"uri": f"tcp://{socket.gethostname()}:10400"}}
headers = {"Authorization": f"Bearer {os.environ['SUPERVISOR_TOKEN']}", "Content-Type": "application/json"}
urllib.request.urlopen(urllib.request.Request("http://supervisor/discovery", json.dumps(body).encode(), headers))
EOF
exec tiny-kws serve --host 0.0.0.0 --models "$folder" --model listener ${threshold:+--threshold "$threshold"}
