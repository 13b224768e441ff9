"""The page of a server: how many streams there are, and the latest events."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>tiny-kws</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem }
:root { color-scheme: light dark }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #8884 }
</style>
<h1>tiny-kws</h1>
<p id="state" role="status">Connecting</p>
<table><thead><tr><th>time<th>word<th>confidence<th>client</tr></thead><tbody id="events"></tbody></table>
<script>
const [state, events] = ["state", "events"].map((id) => document.getElementById(id));
const query = location.search; // ?token=... where one is asked for
function listen() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live${query}`);
  socket.onmessage = ({ data }) => {
    const { streams, seconds, event, client } = JSON.parse(data);
    if (event === undefined) {
      state.textContent = `${streams} ${streams === 1 ? "stream" : "streams"} now, ${seconds} s of sound heard`;
      return;
    }
    const row = events.insertRow(0);
    const texts = [event.time, event.label, event.confidence.toFixed(3), client];
    for (const text of texts) row.insertCell().textContent = text;
    if (events.rows.length > 100) events.deleteRow(-1);
  };
  socket.onclose = () => {
    state.textContent = "Not connected; is the server running, and the token right?";
    setTimeout(listen, 2000);
  };
}
listen();
</script>
</html>
"""
