//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// thunderbird is a running Thunderbird that is driven over Marionette
// (remote/doc/marionette in Mozilla's tree): frames of LENGTH:JSON on TCP.
type thunderbird struct {
	t    *testing.T
	cmd  *exec.Cmd
	conn net.Conn
	in   *bufio.Reader
	id   int
}

// startThunderbird starts it without a screen, and waits until it can be driven.
// A dialog at the start would block that for ever, hence the deadlines.
func startThunderbird(t *testing.T, home, profile string, port string) *thunderbird {
	t.Helper()
	b := &thunderbird{t: t, cmd: exec.CommandContext(t.Context(), "thunderbird", "--headless", "--profile", profile, "--no-remote",
		"--marionette", "--remote-allow-system-access")}
	b.cmd.Env = append(os.Environ(), "HOME="+home, "MOZ_CRASHREPORTER_DISABLE=1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null")
	log, err := os.Create(filepath.Join(home, "thunderbird.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cmd.Process.Kill(); _, _ = b.cmd.Process.Wait() })
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		if b.conn, err = net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Thunderbird does not listen: %v", err)
		}
	}
	b.in = bufio.NewReader(b.conn)
	if _, err := b.frame(); err != nil { // the greeting
		t.Fatal(err)
	}
	b.call("WebDriver:NewSession", map[string]any{"capabilities": map[string]any{}})
	b.call("Marionette:SetContext", map[string]any{"value": "chrome"})
	b.call("WebDriver:SetTimeouts", map[string]any{"script": patience.Milliseconds()})
	return b
}

func (b *thunderbird) frame() ([]byte, error) {
	if err := b.conn.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
		return nil, err
	}
	head, err := b.in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil {
		return nil, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(b.in, body)
	return body, err
}

func (b *thunderbird) call(name string, params any) json.RawMessage {
	b.t.Helper()
	b.id++
	raw, err := json.Marshal([]any{0, b.id, name, params})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(b.conn, "%d:%s", len(raw), raw); err != nil {
		b.t.Fatal(err)
	}
	body, err := b.frame()
	if err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	var answer []json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil || len(answer) != 4 {
		b.t.Fatalf("%s: %v: %s", name, err, body)
	}
	if string(answer[2]) != "null" {
		b.t.Fatalf("%s: %s", name, answer[2])
	}
	return answer[3]
}

// run runs a script whose value is a promise's, and gives it as text.
func (b *thunderbird) run(script string, args ...any) string {
	b.t.Helper()
	body := `const done = arguments[arguments.length - 1];
		const args = [...arguments];
		const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
		const sleep = ms => new Promise(r => setTimeout(r, ms));
		(async () => {` + script + `})().then(v => done("" + v), e => done("FAILED " + e + " " + (e && e.stack)));`
	if args == nil {
		args = []any{}
	}
	answer := b.call("WebDriver:ExecuteAsyncScript", map[string]any{"script": body, "args": args, "newSandbox": true, "sandbox": "system"})
	var value struct{ Value string }
	if err := json.Unmarshal(answer, &value); err != nil {
		b.t.Fatalf("%v: %s", err, answer)
	}
	if strings.HasPrefix(value.Value, "FAILED") {
		b.t.Fatalf("script in Thunderbird: %s", value.Value)
	}
	return value.Value
}

// quit closes it as a person does; it writes its preferences.
func (b *thunderbird) quit() {
	b.t.Helper()
	b.call("Marionette:Quit", map[string]any{"flags": []string{"eForceQuit"}})
	done := make(chan error, 1)
	go func() { done <- b.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(patience):
		b.t.Fatal("Thunderbird does not end")
	}
}

// send composes a message as a person does and sends it; whether it is signed is
// Thunderbird's default.
func (b *thunderbird) send(to, subject, text string) { b.compose(to, subject, text, false) }

// sendSealed has it encrypted too, by the button of the compose window.
func (b *thunderbird) sendSealed(to, subject, text string) { b.compose(to, subject, text, true) }

// compose waits until Thunderbird has looked for the recipients' certificates,
// where it looks for them.
func (b *thunderbird) compose(to, subject, text string, sealed bool) {
	b.t.Helper()
	b.run(`
		const [to, subject, text, sealed] = args;
		const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
		fields.to = to; fields.subject = subject; fields.body = text + "\r\n";
		const params = Cc["@mozilla.org/messengercompose/composeparams;1"].createInstance(Ci.nsIMsgComposeParams);
		params.type = Ci.nsIMsgCompType.New;
		params.format = Ci.nsIMsgCompFormat.PlainText;
		params.identity = MailServices.accounts.allIdentities.find(i => i.email == "alice@example.com");
		params.composeFields = fields;
		MailServices.compose.OpenComposeWindowWithParams(null, params);
		let win;
		for (let i = 0; i < 300 && !(win && win.gMsgCompose && win.composeEditorReady !== false && win.document.readyState == "complete"); i++) {
			await sleep(100);
			win = Services.wm.getMostRecentWindow("msgcompose");
		}
		if (!win || !win.gMsgCompose) throw new Error("no compose window");
		await sleep(1500);
		if (win.gSendEncrypted != sealed) win.toggleEncryptMessage();
		const checked = () => !win.gCheckEncryptionStateCompletionIsPending && !win.gCheckEncryptionStateNeedsRestart;
		for (let calm = 0, i = 0; calm < 5 && i < 300; i++) { calm = checked() ? calm + 1 : 0; await sleep(100); }
		if (!checked()) throw new Error("the recipients are still being looked up");
		if (sealed && (!win.gSendEncrypted || win.gEmailsWithMissingCerts.length)) throw new Error("no certificate of " + win.gEmailsWithMissingCerts);
		const sent = new Promise((resolve, reject) => win.gMsgCompose.addMsgSendListener({
			QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
			onStartSending() {}, onProgress() {}, onSendProgress() {}, onStatus() {}, onGetDraftFolderURI() {}, onSendNotPerformed() {}, onTransportSecurityError() {},
			onStopSending(id, status, msg) { status == 0 ? resolve("sent") : reject(new Error("status " + status + " " + msg)); },
		}));
		win.goDoCommand("cmd_sendNow");
		return sent;`, to, subject, text, sealed)
}

// opens reads a message of the inbox by its subject and gives its text.
func (b *thunderbird) opens(subject string) string {
	b.t.Helper()
	return b.run(`
		const [subject] = args;
		const server = MailServices.accounts.allServers.find(s => s.type == "imap");
		server.password = "secret";
		server.performExpand(null);
		let header, inbox;
		for (let i = 0; i < 300 && !header; i++) {
			await sleep(200);
			inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
			if (!inbox) continue;
			if (i % 10 == 0) inbox.getNewMessages(null, null);
			try { header = [...inbox.messages].find(m => m.mime2DecodedSubject == subject); } catch (e) {}
		}
		if (!header) throw new Error("no message " + subject);
		// What it would show: with conversion the message comes out decrypted, as HTML.
		const uri = inbox.getUriForMsg(header);
		return await new Promise(resolve => {
			let data = "";
			MailServices.messageServiceFromURI(uri).streamMessage(uri, {
				QueryInterface: ChromeUtils.generateQI(["nsIStreamListener", "nsIRequestObserver"]),
				onStartRequest() {},
				onDataAvailable(request, stream, offset, count) {
					const input = Cc["@mozilla.org/scriptableinputstream;1"].createInstance(Ci.nsIScriptableInputStream);
					input.init(stream);
					data += input.read(count);
				},
				onStopRequest(request, status) { resolve(data + " " + status); },
			}, null, null, true, "header=filter");
		});`, subject)
}
