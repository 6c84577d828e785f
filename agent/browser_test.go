package agent

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// newBrowser starts a headless Chromium, or skips the test.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: the page was not looked at in a browser")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// TestStatusPageInBrowser looks at the page with headless Chromium, as who has the token: its text, with the script and
// without, a change that comes while it is open, and pictures in four forms, which stay in $SCREENSHOTS if that is set.
func TestStatusPageInBrowser(t *testing.T) {
	browser := newBrowser(t)
	s := startServer(t, func(s *server) { s.service.peers, s.service.mirrors = &sampleNetwork{}, sampleMirrors{} })
	s.page.token = func() string { return "sesame" }
	s.service.alarms.Raise("mirror-failing", "nginx", "open /etc/nginx/conf.d/site.conf: read-only file system")
	s.service.alarms.Raise("disk-full", "", "less than 256MiB are free")
	s.fake.clock = record.NewHLC(time.Now())
	change := func(path string) {
		t.Helper()
		if _, err := s.client.KV.Put(t.Context(), put(path, "never shown")); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/certs/web/tls.key", "/certs/web/tls.crt", "/nginx/conf.d/a-site-with-a-rather-long-name.example.org.conf", "/flags/beta"} {
		change(path)
	}
	base := s.plainServer(t)
	withToken := strings.Replace(base, "http://", "http://x:sesame@", 1) + "/?names"
	_, open := httpGet(t, base+"/", "localhost")
	_, still := httpGet(t, withToken, "localhost") // what is there without JavaScript
	if err := chromedp.Do(browser, chromedp.Navigate(withToken)); err != nil {
		t.Fatal(err)
	}
	shown := ""
	see := func(text string) {
		t.Helper()
		waitUntil(t, "the page shows "+text, func() bool {
			var err error
			if shown, err = chromedp.Run(browser, chromedp.Evaluate[string]("document.documentElement.outerHTML")); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(shown, text)
		})
	}
	see(`id="live">live<`)
	change("/live/change")
	see("/live/change")
	for _, want := range []string{"web2", "disk-full", "synced", "equal", "store.min_free", "/certs/web/tls.key", "unknown directive"} {
		if !strings.Contains(shown, want) || !strings.Contains(still, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(shown+still+open, "never shown") || strings.Contains(open, "tls.key") || !strings.Contains(open, "/?names") {
		t.Error("the page shows too much or too little")
	}
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		folder = t.TempDir()
	}
	for _, width := range []int{1280, 390} {
		for _, theme := range []string{"light", "dark"} {
			takePicture(browser, t, filepath.Join(folder, fmt.Sprintf("status-%d-%s.png", width, theme)), width, theme)
		}
	}
}

// takePicture writes a picture of the whole page, and holds that it has the width and the theme.
func takePicture(browser context.Context, t *testing.T, file string, width int, theme string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}
	err := chromedp.Do(browser, chromedp.EmulateViewport(int64(width), 900), chromedp.Func(func(ctx context.Context, page *chromedp.Target) error {
		_, err := cdp.Call(ctx, page, emulation.SetEmulatedMedia, media)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	data, err := chromedp.Run(browser, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r, _, _, _ := picture.At(2, 2).RGBA()
	if dark := r < 0x8000; dark != (theme == "dark") || picture.Bounds().Dx() != width {
		t.Errorf("%s: background %x, %v: something is wider than the page, or has another theme", file, r, picture.Bounds())
	}
}

// sampleNetwork and sampleMirrors are what a picture of the page shows.
type sampleNetwork struct{ fakeNetwork }

func (*sampleNetwork) Peers() []*apiv1.Peer {
	ms := func(v float64) *float64 { return &v }
	return []*apiv1.Peer{
		{PeerId: "12D3KooWQn4tENiQCvGnGqXJ5p3QT1RpfsoviHZKJfr2DfeQ168q", Alias: "web2", Connected: true, Equal: true, RttMs: ms(0.4), ClockSkewMs: ms(38), PolicySerial: 42, Version: "0.1.0", Addr: "/ip4/10.0.0.12/udp/7424/quic-v1"},
		{PeerId: "12D3KooWPu3aQMyDpmz3keEdvgJERr1ttCjxnH68Vj3XdVQYZ9N5", Alias: "db1", Connected: true, Equal: true, RttMs: ms(12.25), ClockSkewMs: ms(-4), PolicySerial: 42, Version: "0.1.0", Addr: "/ip6/2001:db8::5/tcp/7424"},
		{PeerId: "12D3KooWRm8rQMyDpmz3keEdvgJERr1ttCjxnH68Vj3XdVQYZ9N5", Alias: "db2", Addr: "/dns4/db2/tcp/7424"},
	}
}

type sampleMirrors struct{ noMirrors }

func (sampleMirrors) Status() ([]*apiv1.Mirror, []*apiv1.Trigger) {
	exit := int32(1)
	return []*apiv1.Mirror{
		{Name: "certs", Prefix: "/certs", Dir: "/etc/ssl/synced", State: "ok", Files: 12},
		{Name: "nginx", Prefix: "/nginx", Dir: "/etc/nginx/conf.d", State: "failing", Files: 7, Pending: 1, LastError: "read-only file system"},
	}, []*apiv1.Trigger{{Path: "/nginx", Command: "nginx -s reload", Runs: 4, LastExit: &exit, LastOutput: "unknown directive"}}
}
