// The editor of a live cell; fetched at the first click.
import { defaultKeymap, history, historyKeymap, indentLess, indentMore } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";

// Classes, not colours: the style sheet gives both themes the page's own.
const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.controlKeyword, tags.operatorKeyword, tags.bool, tags.null], class: "live-keyword" },
  { tag: tags.string, class: "live-string" },
  { tag: tags.number, class: "live-number" },
  { tag: tags.comment, class: "live-comment" },
  { tag: [tags.definition(tags.variableName), tags.function(tags.variableName), tags.className], class: "live-name" },
]);

export function makeEditor({ parent, text, label, run, changed }) {
  const go = () => {
    run();
    return true;
  };
  return new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      extensions: [
        history(),
        drawSelection(),
        bracketMatching(),
        indentUnit.of("    "),
        python(),
        syntaxHighlighting(colours),
        EditorView.contentAttributes.of({ "aria-label": label }),
        // Tab is left to the page, so that a keyboard never gets caught in the editor.
        keymap.of([
          { key: "Shift-Enter", run: go },
          { key: "Mod-Enter", run: go },
          { key: "Mod-]", run: indentMore },
          { key: "Mod-[", run: indentLess },
          ...defaultKeymap,
          ...historyKeymap,
        ]),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) changed(update.state.doc.toString());
        }),
      ],
    }),
  });
}
