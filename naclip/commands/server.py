"""Serving the page on which pictures are segmented: what is in it, and what happens on a click."""

import argparse
import functools
import html
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clip import available_models, resolve_device
from clip.sources import check_name
from naclip.api import Segmenter
from naclip.commands.attention import Comparison, Result, attention_html, attention_maps, looked_into
from naclip.commands.compare import (
    MOST_COMPARED,
    Settings,
    compare_upload,
    compared_settings,
    link_of,
    settings_of,
)
from naclip.commands.page import (
    CSS,
    EXAMPLES,
    PREVIEW_SIDE,
    Load,
    legend_html,
    number_of,
    picture_point,
    point_html,
    read_upload,
    segment_upload,
    shown,
    write_examples,
)
from naclip.commands.segment import write_outputs
from naclip.methods import METHODS

if TYPE_CHECKING:
    from gradio import Blocks

METHODS_OFFERED = [method.name for method in METHODS if not method.needs_regions]  # the page takes no region masks
MODELS_KEPT = 2
SESSIONS_KEPT = 16  # whose last result can be asked about: their scores stay in memory
FILES_KEPT = 3600  # seconds
FONTS = ('system-ui', 'sans-serif')  # the reader's own: none is fetched


def check_options(options: argparse.Namespace) -> None:
    """Make sure, before anything is loaded, that there is something to serve, and where.

    Raises:
        ValueError: an unknown backbone or device, or an address that cannot be served at; says which and why.
    """
    check_name(options.backbone)
    resolve_device(options.device)
    if options.port > 65535:
        raise ValueError(f'port is {options.port}, expected 1 to 65535')
    family = socket.AF_INET6 if ':' in options.host else socket.AF_INET
    try:
        socket.create_server((options.host, options.port), family=family).close()
    except OSError as error:
        raise ValueError(
            f'cannot serve at {options.host}, port {options.port} ({error.strerror}): choose another --port or --host'
        ) from None


def backbone_choices(backbone: str) -> list[str]:
    """The backbones to choose from: the known ones, and the file that was named, if it was one."""
    return list(dict.fromkeys([*available_models(), backbone]))


def kept(result: Result | None) -> Result:
    """A visitor's last result.

    Raises:
        ValueError: there is none, or it was given up for those of others.
    """
    if result is None:
        raise ValueError('the result is not kept any longer, or there was none: segment the picture')
    return result


def build_page(load: Load, backbone: str, folder: Path) -> 'Blocks':
    """The page; files for the browser are made in `folder`, gradio's own, and those of the examples beside it."""
    import gradio as gr

    def told(function: Callable) -> Callable:
        """Errors of the user's input as messages in the page; gradio reads them as HTML."""

        @functools.wraps(function)
        def wrapped(*inputs):
            try:
                return function(*inputs)
            except (ValueError, OSError) as error:
                raise gr.Error(html.escape(str(error)), print_exception=False) from None

        return wrapped

    @told
    def preview(path):
        if path is None:
            return gr.update(value=None, visible=False)
        picture = read_upload(path)
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        return gr.update(value=picture, visible=True)

    @told
    def segment(path, *inputs):
        given = chosen(*inputs)
        texts = (given.classes, given.background, given.method, given.backbone)
        seen, unknown = segment_upload(load, path, *texts, given.std, given.pamr, given.prob_thd)
        if unknown:
            gr.Warning(html.escape(f'the backbone has never seen {", ".join(map(repr, unknown))}'))
        out, stem = Path(tempfile.mkdtemp(dir=folder)), Path(path).stem
        write_outputs(seen, False, out, stem)
        choices = [('all classes', -1), *((name, i) for i, name in enumerate(seen.names))]
        files = [gr.update(value=out / f'{stem}_{what}.png', interactive=True) for what in ('overlay', 'labels')]
        hint = '<p>Click on the picture for the scores at a pixel, and for the attention map of its patch.</p>'
        listings = [gr.update(value=value, visible=True) for value in (legend_html(seen), hint)]
        result, old_maps = Result(seen, given, path), [gr.update(value=None, visible=False)] * 2
        return result, gr.update(choices=choices, value=-1), shown(seen, -1), *listings, *files, *old_maps

    @told
    def show(result, index):
        return shown(kept(result).seen, index)

    @told
    def describe(result, event: gr.SelectData):
        seen = kept(result).seen
        point = picture_point(seen, *event.index)
        return point_html(seen, *point) if point else gr.skip()

    @told
    def attend(result, comparison, event: gr.SelectData):
        if result is None:  # as the scores say already
            return [gr.skip()] * 2
        seen = result.seen
        point = picture_point(seen, *event.index)
        if point is None:
            return [gr.skip()] * 2
        drawn = attention_maps(load, seen.picture, looked_into(result, comparison), *point)
        return [gr.update(value=value, visible=True) for value in (drawn, attention_html(*point))]

    def chosen(classes, background, method, model, std, pamr, prob_thd):
        numbers = number_of(std, 'σ'), number_of(prob_thd, 'prob_thd')
        return Settings(classes, background, model, method, numbers[0], pamr, numbers[1])

    @told
    def compare(path, methods, both, *inputs):
        compared = compared_settings(chosen(*inputs), methods, both)
        drawn = compare_upload(load, path, compared)
        return Comparison(compared, path), gr.update(value=drawn, visible=True)

    @told
    def link(request: gr.Request, *inputs):
        address = str(request.request.base_url).rstrip('/')
        return gr.update(value=f'{address}/{link_of(chosen(*inputs))}', visible=True)

    def restore(request: gr.Request):
        query, usual = str(request.request.url.query), Settings(backbone=backbone)
        found = settings_of(query, usual, METHODS_OFFERED, backbone_choices(backbone))
        if found == usual:
            return [gr.skip()] * len(settings)  # the visitor may have been quicker, and typed something
        std, prob_thd = ('' if value is None else f'{value:g}' for value in (found.std, found.prob_thd))
        return found.classes, found.background, found.method, found.backbone, std, found.pamr, prob_thd

    examples = write_examples(folder.parent / 'examples')

    def fill(number):
        _, classes, background = EXAMPLES[number]
        return str(examples[number]), classes, background, 'shapes', 'naclip', '', 'method', ''

    with gr.Blocks(title='NACLIP', analytics_enabled=False, delete_cache=(600, FILES_KEPT)) as page:
        gr.Markdown(
            '# NACLIP\nName what may be in a picture; every pixel gets the name that fits best.', elem_id='heading'
        )
        result, comparison = gr.State(time_to_live=FILES_KEPT), gr.State(time_to_live=FILES_KEPT)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                upload = gr.File(label='Picture', height=130, elem_id='upload')
                with gr.Accordion('Paste, or photograph', open=False, elem_id='camera-part'):
                    camera = gr.Image(
                        sources=['clipboard', 'webcam'], type='filepath', format='png', show_label=False,
                        buttons=[], elem_id='camera',
                    )  # fmt: skip
                picture = gr.Image(
                    visible=False, interactive=False, show_label=False, format='png', buttons=[], elem_id='preview'
                )
                classes = gr.Textbox(
                    label='Classes, as in “cat, kitten; dog”',
                    placeholder='cat, kitten; dog; grass',
                    elem_id='classes',
                )
                background = gr.Textbox(
                    label='Background: what is not to be told apart', placeholder='wall, sky', elem_id='background'
                )
                button = gr.Button('Segment', variant='primary', elem_id='segment')
                with gr.Accordion('Settings', open=False, elem_id='settings'):
                    with gr.Row():
                        method = gr.Dropdown(
                            METHODS_OFFERED, value='naclip', label='Method', min_width=120, elem_id='method'
                        )
                        model = gr.Dropdown(
                            backbone_choices(backbone),
                            value=backbone,
                            label='Backbone',
                            min_width=120,
                            elem_id='backbone',
                        )
                    pamr = gr.Radio(
                        ['method', 'on', 'off'], value='method', label='PAMR: refinement along edges', elem_id='pamr'
                    )
                    with gr.Row():
                        # Texts: an empty gr.Number turns into 0 when it is shown.
                        typed = dict(placeholder='default', max_lines=1, min_width=120)
                        std = gr.Textbox(label='σ, in patches', elem_id='std', **typed)
                        prob_thd = gr.Textbox(label='prob_thd', elem_id='prob-thd', **typed)
                with gr.Accordion('Compare methods', open=False, elem_id='compare'):
                    compared = gr.Dropdown(
                        METHODS_OFFERED,
                        value=['clip', 'naclip'],
                        multiselect=True,
                        max_choices=MOST_COMPARED,
                        label=f'Methods, {MOST_COMPARED} at most',
                        elem_id='compared',
                    )
                    both = gr.Checkbox(label='each without and with PAMR', elem_id='both')
                    comparing = gr.Button('Compare', elem_id='comparing')
                with gr.Accordion('Link to these settings', open=False, elem_id='link-part'):
                    linking = gr.Button('Make a link', elem_id='linking')
                    address = gr.Textbox(
                        visible=False, interactive=False, label='Link', buttons=['copy'], elem_id='address'
                    )
                example = gr.Dataset(
                    label='Examples: generated pictures, backbone shapes',
                    components=[gr.Image(render=False)],
                    samples=[[str(path)] for path in examples],
                    type='index',
                    elem_id='examples',
                )
            with gr.Column(scale=3, min_width=320):
                download = dict(interactive=False, size='md', min_width=100)
                with gr.Row(equal_height=True):
                    choice = gr.Dropdown(
                        [('all classes', -1)], value=-1, show_label=False, container=False, scale=2, elem_id='choice'
                    )
                    overlay = gr.DownloadButton('Save overlay', elem_id='overlay', **download)
                    labels = gr.DownloadButton('Save label map', elem_id='labels', **download)
                seen = gr.Image(
                    interactive=False, show_label=False, format='png', buttons=['fullscreen'], elem_id='seen'
                )
                side_by_side = gr.Gallery(
                    visible=False, interactive=False, columns=2, format='png', object_fit='contain',
                    show_label=False, buttons=['fullscreen'], elem_id='side-by-side', elem_classes='pictures',
                )  # fmt: skip
                with gr.Row():
                    with gr.Column(min_width=240):
                        legend = gr.HTML(elem_id='legend', container=True, visible=False)
                    with gr.Column(min_width=240):
                        scores = gr.HTML(elem_id='scores', container=True, visible=False)
                maps = gr.Gallery(
                    visible=False, interactive=False, columns=2, format='png', object_fit='contain',
                    show_label=False, buttons=['fullscreen'], elem_id='maps', elem_classes='pictures',
                )  # fmt: skip
                of_maps = gr.HTML(elem_id='of-maps', visible=False)

        inputs = [upload, classes, background, method, model, std, pamr, prob_thd]
        outputs = [result, choice, seen, legend, scores, overlay, labels, maps, of_maps]
        once = dict(api_visibility='private', concurrency_id='segment', concurrency_limit=1, show_progress_on=seen)
        private = dict(api_visibility='private')
        upload.change(preview, upload, picture, **private)
        triggers = [button.click, classes.submit, background.submit]
        gr.on(triggers, segment, inputs, outputs, **once)
        filled = [upload, classes, background, model, method, std, pamr, prob_thd]
        settings = inputs[1:]
        comparing.click(
            compare,
            [upload, compared, both, *settings],
            [comparison, side_by_side],
            **once | dict(show_progress_on=side_by_side),
        )
        linking.click(link, settings, address, **private)
        page.load(restore, None, settings, **private)
        camera.change(lambda path: path or gr.skip(), camera, upload, **private)
        example.click(fill, example, filled, **private).success(segment, inputs, outputs, **once)
        choice.input(show, [result, choice], seen, **private)
        seen.select(describe, result, scores, **private)
        at_work = once | dict(show_progress='minimal', show_progress_on=scores)
        seen.select(attend, [result, comparison], [maps, of_maps], **at_work)
    return page


def load_backbone(options: argparse.Namespace, backbone: str) -> Segmenter:
    """A backbone; what --activation and --head-width say is of the one that was named beside them."""
    given = dict(activation=options.activation, head_width=options.head_width) if backbone == options.backbone else {}
    return Segmenter(backbone, options.device, options.dtype, options.download_root, **given)


def serve(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        ValueError, OSError: it cannot be served; says why.
    """
    check_options(options)
    load = functools.lru_cache(MODELS_KEPT)(functools.partial(load_backbone, options))
    with tempfile.TemporaryDirectory(prefix='naclip-app-') as scratch:
        folder = Path(scratch) / 'files'
        folder.mkdir()
        os.environ |= {  # read when gradio is imported: nothing is reported, and files go where they are removed
            'GRADIO_ANALYTICS_ENABLED': 'False',
            'HF_HUB_DISABLE_TELEMETRY': '1',
            'HF_HUB_OFFLINE': '1',
            'GRADIO_TEMP_DIR': str(folder),
        }
        try:
            import gradio as gr
        except ImportError as error:
            raise ValueError(
                f"the page needs gradio ({error}): pip install 'naclip[app]', or -r tools/requirements-app.txt"
            ) from None
        page = build_page(load, options.backbone, folder)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _, address, _ = page.launch(
                server_name=options.host,
                server_port=options.port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=options.max_upload_mb << 20,
                state_session_capacity=SESSIONS_KEPT,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                theme=gr.themes.Default(font=FONTS, font_mono='monospace'),
                css=CSS,
            )
            print(f'Open {address} in a browser; Ctrl-C ends it.', flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)
