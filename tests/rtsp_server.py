"""An RTSP camera made of a file, for the tests: run by the system's Python, which has GStreamer.

Usage: python3 rtsp_server.py FILE.mp4 PORT. Serves rtsp://127.0.0.1:PORT/live, H.264 (and AAC if there is sound), from
the start for each client; prints "ready".
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # after the versions are chosen


def main(path: str, port: str, *, has_sound: bool) -> None:
    """Serve until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    launch = f'filesrc location="{path}" ! qtdemux name=d d.video_0 ! queue ! h264parse ! rtph264pay name=pay0 pt=96'
    if has_sound:
        launch += " d.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    factory.set_launch(f"( {launch} )")
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


main(sys.argv[1], sys.argv[2], has_sound="--sound" in sys.argv)
