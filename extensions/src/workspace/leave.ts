/** What happens to open documents before the server behind this page is gone. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { DocumentRegistry } from '@jupyterlab/docregistry';
import { Widget } from '@lumino/widgets';

import { Problem } from '../api';

export function unsaved(app: JupyterFrontEnd): DocumentRegistry.Context[] {
  const contexts = [...app.shell.widgets('main')].map(
    widget => (widget as Widget & { context?: DocumentRegistry.Context }).context
  );
  return [...new Set(contexts)].filter(
    (context): context is DocumentRegistry.Context =>
      context?.model !== undefined && context.model.dirty && !context.model.readOnly
  );
}

/** Save every open document; fail on the first that cannot be saved. */
export async function saveAll(app: JupyterFrontEnd): Promise<void> {
  for (const context of unsaved(app)) {
    await context.save();
    if (context.model.dirty) {
      throw new Problem(
        `${context.path} could not be saved, so the workspace stays awake.`,
        'Save or close it, then try again.'
      );
    }
  }
}
